// Package sandbox runs one program safely.
package sandbox
