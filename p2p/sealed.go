package p2p

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
)

// sealed is the layout of a file whose damage is noticed: a bit that flips in a
// number or a name leaves JSON that reads well and says something else.
type sealed struct {
	// Checksum is the SHA-256 of Content without white space, in hexadecimal.
	Checksum string          `json:"checksum"`
	Content  json.RawMessage `json:"content"`
}

var errSeal = errors.New("its checksum does not match: it was damaged, or changed by hand")

// Seal writes v as indented JSON beside a checksum of it. It is the form of the
// small files of a data folder: see Unseal.
func Seal(v any) ([]byte, error) {
	content, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(sealed{Checksum: contentSum(content), Content: content}, "", "  ")
	return append(data, '\n'), err
}

// Unseal reads into v what Seal has written, and refuses what is not just that.
// Files of versions before checksums hold v alone and are read without one;
// what damage makes of a sealed file is none of those.
func Unseal(data []byte, v any) error {
	var file sealed
	if err := json.Unmarshal(data, &file); err != nil {
		return err
	}
	if file.Checksum == "" && file.Content == nil {
		return json.Unmarshal(data, v)
	}
	var content bytes.Buffer
	if err := json.Compact(&content, file.Content); err != nil {
		return errSeal
	}
	if contentSum(content.Bytes()) != file.Checksum {
		return errSeal
	}
	return json.Unmarshal(content.Bytes(), v)
}

func contentSum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
