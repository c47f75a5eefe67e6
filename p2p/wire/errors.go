package wire

import (
	"errors"
	"fmt"
	"strings"
)

// CodedError is an error with a class that survives the wire: Error on one
// side, CodedError with the same code and text on the other.
type CodedError struct {
	Code Code
	Text string
}

// Error returns the text.
func (e *CodedError) Error() string { return e.Text }

// Errorf returns a CodedError with a formatted text.
func Errorf(code Code, format string, args ...any) error {
	return &CodedError{Code: code, Text: fmt.Sprintf(format, args...)}
}

// CodeOf returns the class of err: that of the first CodedError in its chain,
// CODE_INTERNAL if there is none, CODE_UNSPECIFIED for nil.
func CodeOf(err error) Code {
	if err == nil {
		return Code_CODE_UNSPECIFIED
	}
	var coded *CodedError
	if errors.As(err, &coded) {
		return coded.Code
	}
	return Code_CODE_INTERNAL
}

// maxErrorBytes bounds the text of an error on the wire.
const maxErrorBytes = 1000

// EncodeError returns err as it crosses the wire; nil for nil. The text is cut
// to 1,000 bytes, and what is not UTF-8 in it, which no message may carry,
// becomes question marks.
func EncodeError(err error) *Error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if len(text) > maxErrorBytes {
		text = text[:maxErrorBytes]
	}
	return &Error{Code: CodeOf(err), Text: strings.ToValidUTF8(text, "?")}
}

// DecodeError is the inverse of EncodeError.
func DecodeError(e *Error) error {
	if e == nil {
		return nil
	}
	return &CodedError{Code: e.GetCode(), Text: e.GetText()}
}
