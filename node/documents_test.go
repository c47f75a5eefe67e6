package node_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documents reads the pages for people, by their path from the module's root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	pages := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			pages[path.Join(path.Dir(pattern), filepath.Base(name))] = string(text)
		}
	}
	if len(pages) == 0 {
		t.Fatal("no documents were found")
	}
	return pages
}

var (
	link     = regexp.MustCompile(`\]\(([^)#\s]+)`)
	filePath = regexp.MustCompile("`([a-z0-9][a-z0-9_./-]*/[a-z0-9_./-]+\\.(?:go|proto|sh|mod|md|c))`")
	testName = regexp.MustCompile(`\bTest[A-Z][A-Za-z0-9]+`)
)

func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	for page, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := filepath.Join(root, path.Dir(page), m[1])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
}

func TestDocumentsNameFilesThatAreThere(t *testing.T) {
	for page, text := range documents(t) {
		for _, m := range filePath.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names the file %s, which is not there: where is what it says now?", page, m[1])
			}
		}
	}
}

func TestDocumentsNameTestsThatAreThere(t *testing.T) {
	var tests strings.Builder
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		tests.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	all := tests.String()
	for page, text := range documents(t) {
		for _, name := range testName.FindAllString(text, -1) {
			if !strings.Contains(all, "func "+name+"(") {
				t.Errorf("%s says that %s shows something, and there is no such test: name the one that does, or say that nothing shows it", page, name)
			}
		}
	}
}
