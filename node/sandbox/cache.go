package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maxCache bounds the folder for compiled programs, in bytes.
const maxCache = 2 << 30

// cachedFile is a file of the folder for compiled programs.
type cachedFile struct {
	path string
	size int64
	made time.Time
}

// cachedFiles lists the files of the folder, oldest first.
func cachedFiles(dir string) []cachedFile {
	var files []cachedFile
	// What cannot be read is not counted: the folder is a convenience.
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if info, err := entry.Info(); err == nil {
			files = append(files, cachedFile{path, info.Size(), info.ModTime()})
		}
		return nil
	})
	slices.SortFunc(files, func(a, b cachedFile) int { return a.made.Compare(b.made) })
	return files
}

// writtenSince reports whether a file of the folder was written since then.
func writtenSince(dir string, then time.Time) bool {
	files := cachedFiles(dir)
	return len(files) > 0 && !files[len(files)-1].made.Before(then)
}

// pruneCache removes the oldest files of the folder until the rest has at most
// limit bytes, -1 for none. Children that use one of them are not disturbed.
func pruneCache(dir string, limit int64) {
	if dir == "" {
		return
	}
	files := cachedFiles(dir)
	total := int64(0)
	for _, file := range files {
		total += file.size
	}
	for _, file := range files {
		if total <= limit {
			return
		}
		if os.Remove(file.path) == nil {
			total -= file.size
		}
	}
}
