package wire

import (
	"encoding/binary"
	"fmt"
)

// A pack holds many small items in the bytes of one page or of one inline
// segment: their number, their lengths, their bytes.
//
//	uvarint n · n × uvarint length · bytes of item 0 · bytes of item 1 · …

// EncodePack returns items as a pack. The caller keeps within PageSize and
// MaxPackItems; PackSize tells.
func EncodePack(items [][]byte) []byte {
	buf := make([]byte, 0, PackSize(items))
	buf = binary.AppendUvarint(buf, uint64(len(items)))
	for _, item := range items {
		buf = binary.AppendUvarint(buf, uint64(len(item)))
	}
	for _, item := range items {
		buf = append(buf, item...)
	}
	return buf
}

// PackSize returns a bound of the encoded size of items.
func PackSize(items [][]byte) int {
	size := binary.MaxVarintLen32
	for _, item := range items {
		size += PackItemSize(len(item))
	}
	return size
}

// PackItemSize returns a bound of what an item of so many bytes adds to a pack.
func PackItemSize(length int) int {
	return binary.MaxVarintLen32 + length
}

// DecodePack returns the items of a pack, which share b's memory. Anything that
// EncodePack does not write is an error. It allocates one slice of the items,
// of which there are no more than b has bytes and than MaxPackItems.
func DecodePack(b []byte) ([][]byte, error) {
	n, used := packUvarint(b)
	if used <= 0 || n > MaxPackItems || n > uint64(len(b)) {
		return nil, Errorf(Code_CODE_INVALID, "a damaged pack: its number of items")
	}
	lengths := b[used:]
	rest := lengths
	for range n {
		_, used := packUvarint(rest)
		if used <= 0 {
			return nil, Errorf(Code_CODE_INVALID, "a damaged pack: the length of an item")
		}
		rest = rest[used:]
	}
	items := make([][]byte, n)
	for i := range items {
		length, used := binary.Uvarint(lengths)
		lengths = lengths[used:]
		if length > uint64(len(rest)) {
			return nil, Errorf(Code_CODE_INVALID, "a damaged pack: item %d is cut off", i)
		}
		items[i] = rest[:length:length]
		rest = rest[length:]
	}
	if len(rest) != 0 {
		return nil, Errorf(Code_CODE_INVALID, "a damaged pack: %d bytes after its items", len(rest))
	}
	return items, nil
}

// packUvarint is binary.Uvarint for the shortest form alone: one list of items
// has one pack. used is not positive where there is none.
func packUvarint(b []byte) (v uint64, used int) {
	v, used = binary.Uvarint(b)
	if used > 1 && b[used-1] == 0 {
		return 0, 0
	}
	return v, used
}

// PackItem returns item i of a pack without decoding the others' places.
func PackItem(b []byte, i int) ([]byte, error) {
	items, err := DecodePack(b)
	if err != nil {
		return nil, err
	}
	if i < 0 || i >= len(items) {
		return nil, fmt.Errorf("a pack of %d items has no item %d", len(items), i)
	}
	return items[i], nil
}
