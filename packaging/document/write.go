package document

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write writes pages as NAME.SECTION into a folder, and other files by their name.
func Write(dir string, pages []Page, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, page := range pages {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s.%d", page.Name, page.Section)), []byte(page.Text), 0o644); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
