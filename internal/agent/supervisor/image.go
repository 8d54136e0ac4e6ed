package supervisor

import (
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// pinned is the image that an assignment's tasks run: the one that the name stood for when its revision first ran, where
// that is known. So all of them run the same, whatever the name means by now.
func pinned(a *warrenv1.Assignment) string {
	image := a.GetSpec().GetContainer().GetImage()
	if a.GetImageDigest() == "" || strings.Contains(image, "@") {
		return image
	}
	return image + "@" + a.GetImageDigest()
}
