package completion

import "strings"

// Script returns the script that teaches a shell (bash, zsh or fish) to complete program.
func Script(shell, program string) string {
	return strings.ReplaceAll(scripts[shell], "PROGRAM", program)
}

var scripts = map[string]string{
	"bash": `# Completion of PROGRAM for bash. Load it with: source <(PROGRAM completion bash)
_PROGRAM() {
    local candidate
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        [[ -n $candidate ]] && COMPREPLY+=("$candidate")
    done < <(PROGRAM __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _PROGRAM PROGRAM
`,
	"zsh": `#compdef PROGRAM
# Completion of PROGRAM for zsh. Load it with: source <(PROGRAM completion zsh)
_PROGRAM() {
    local -a candidates
    local line
    for line in "${(@f)$(PROGRAM __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -n $line ]] && candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    if (( $#candidates )); then
        _describe PROGRAM candidates
    else
        _files
    fi
}
compdef _PROGRAM PROGRAM
`,
	"fish": `# Completion of PROGRAM for fish. Load it with: PROGRAM completion fish | source
function __PROGRAM_complete
    set -l words (commandline -opc)
    PROGRAM __complete -- $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c PROGRAM -a '(__PROGRAM_complete)'
`,
}
