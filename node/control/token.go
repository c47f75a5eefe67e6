package control

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// tokenSize is the length of the token in bytes, before hexadecimal.
const tokenSize = 32

// loadToken returns the token in the file at path, and makes it, readable by
// this user only, if there is none or it is damaged.
func loadToken(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the control token: %w", err)
	}
	if token := strings.TrimSpace(string(raw)); len(token) == 2*tokenSize {
		return token, os.Chmod(path, 0o600)
	}
	var b [tokenSize]byte
	rand.Read(b[:])
	token := hex.EncodeToString(b[:])
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("writing the control token: %w", err)
	}
	if err := os.WriteFile(temp, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing the control token: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return "", fmt.Errorf("writing the control token: %w", err)
	}
	return token, nil
}
