package p2p

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
)

// keyFileType is the PEM type of the key file, a PKCS #8 private key.
const keyFileType = "PRIVATE KEY"

// maxKeyFile bounds what is read of a key file.
const maxKeyFile = 16 << 10

// LoadOrCreateKey reads the device's key from path, or makes one and writes it
// there (PKCS #8 in PEM, mode 0600, synced) if there is no file. A file that
// holds no such key is an error that names it; it is left alone.
func LoadOrCreateKey(path string) (ed25519.PrivateKey, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, key, err = ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: keyFileType, Bytes: der})); err != nil {
		return nil, fmt.Errorf("cannot write the device's key: %w", err)
	}
	return key, nil
}

func loadKey(path string) (ed25519.PrivateKey, error) {
	data, err := readFile(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the device's key: %w", err)
	}
	damaged := fmt.Errorf("%s does not hold an Ed25519 key: restore it from a copy, "+
		"or move it away to become a new device (which needs an invite to join again)", path)
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyFileType {
		return nil, damaged
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, damaged
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, damaged
	}
	return key, nil
}
