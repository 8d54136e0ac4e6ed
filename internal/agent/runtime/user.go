package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	rootpath "github.com/containerd/continuity/fs"
	"github.com/moby/sys/user"

	"github.com/cuemby/warren/internal/agent/runtime/ocispec"
)

// resolveUser returns who a container's program runs as: the template's user, else the image's, else
// root. The image's files are looked into once for each user.
func (r *Runtime) resolveUser(ctx context.Context, c Container, config *imageConfig) (ocispec.User, error) {
	name := c.Spec.GetContainer().GetUser()
	if name == "" {
		name = config.User
	}
	groups := c.Spec.GetContainer().GetGroups()
	key := strings.Join(append([]string{name}, groups...), "\x00")
	config.mu.Lock()
	defer config.mu.Unlock()
	if known, ok := config.users[key]; ok {
		return known, nil
	}
	var found ocispec.User
	err := r.withImage(ctx, config, c.ID, func(root string) (err error) {
		config.narrow = runsNarrow(root, config.architecture)
		found, err = lookUpUser(root, name, groups)
		return err
	})
	if err != nil {
		return ocispec.User{}, err
	}
	config.users[key] = found
	return found, nil
}

// lookUpUser finds a user and groups in the files of an image.
func lookUpUser(root, name string, groups []string) (ocispec.User, error) {
	passwd, err := openInside(root, "/etc/passwd")
	if err != nil {
		return ocispec.User{}, err
	}
	defer passwd.Close()
	group, err := openInside(root, "/etc/group")
	if err != nil {
		return ocispec.User{}, err
	}
	defer group.Close()
	found, err := user.GetExecUser(name, nil, passwd, group)
	if err != nil {
		return ocispec.User{}, fmt.Errorf("user: %q is not known in the image: %w; use a number, or a name in its /etc/passwd", name, err)
	}
	result := ocispec.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	for _, id := range found.Sgids {
		result.Groups = append(result.Groups, uint32(id))
	}
	if len(groups) == 0 {
		return result, nil
	}
	if slices.Contains(groups, "") {
		return ocispec.User{}, errors.New("groups: one of them is empty; use numbers, or names in the image's /etc/group")
	}
	again, err := openInside(root, "/etc/group")
	if err != nil {
		return ocispec.User{}, err
	}
	defer again.Close()
	more, err := user.GetAdditionalGroups(groups, again)
	if err != nil {
		return ocispec.User{}, fmt.Errorf("groups: %w; use numbers, or names in the image's /etc/group", err)
	}
	for _, id := range more {
		result.Groups = append(result.Groups, uint32(id))
	}
	return result, nil
}

// openInside opens a file as a program with that root would find it; one that is missing is empty. An image may have anything
// there: who opens a pipe waits for its other end for ever, and a device is not the image's.
func openInside(root, path string) (io.ReadCloser, error) {
	target, err := rootpath.RootPath(root, path)
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(target)
	}
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("look into the image: its %s is not a file", path)
	}
	if err == nil {
		var file *os.File
		if file, err = os.Open(target); err == nil {
			return file, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	return nil, fmt.Errorf("look into the image: %w", err)
}
