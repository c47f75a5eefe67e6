package wire

import (
	"unicode"
	"unicode/utf8"
)

// CheckProfile reports why a profile is out of the bounds of section 11 of the
// design.
func CheckProfile(p *DeviceProfile) error {
	if err := CheckName(p.GetName()); err != nil {
		return err
	}
	can := p.GetCapabilities()
	if n := can.GetCpuCores(); n < 1 || n > 1024 {
		return Errorf(Code_CODE_INVALID, "%d cores: a device has 1 to 1024", n)
	}
	if gb := can.GetMemoryGb(); !(gb >= 0.125 && gb <= 65536) {
		return Errorf(Code_CODE_INVALID, "%v GB of memory: a device has 0.125 to 65,536", gb)
	}
	if score := p.GetOpsScore(); !(score >= 0 && score <= 1e12) {
		return Errorf(Code_CODE_INVALID, "a score of %v operations a millisecond is out of range", score)
	}
	if len(can.GetGpuName()) > MaxName || len(can.GetRuntime()) > MaxName || len(p.GetVersion()) > MaxName {
		return Errorf(Code_CODE_INVALID, "a GPU, a runtime and a version have names of at most %d bytes", MaxName)
	}
	return CheckLabels(p.GetLabels())
}

// CheckName reports why a name cannot be a device's: it has 1 to 100 printable
// characters.
func CheckName(name string) error {
	if n := utf8.RuneCountInString(name); n < 1 || n > MaxName {
		return Errorf(Code_CODE_INVALID, "a name of %d characters: it has 1 to %d", n, MaxName)
	}
	if !printable(name) {
		return Errorf(Code_CODE_INVALID, "the name %q has characters that cannot be printed", name)
	}
	return nil
}

// CheckLabels reports why labels are out of bounds: at most 32, each key of 1
// to 64 printable characters and each value of at most 64.
func CheckLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return Errorf(Code_CODE_INVALID, "%d labels: at most %d are allowed", len(labels), MaxLabels)
	}
	for k, v := range labels {
		if k == "" || utf8.RuneCountInString(k) > MaxLabel || utf8.RuneCountInString(v) > MaxLabel || !printable(k+v) {
			return Errorf(Code_CODE_INVALID, "the label %q=%q: key and value have at most %d printable characters", k, v, MaxLabel)
		}
	}
	return nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// RoleName returns the role as flags and JSON have it; "" for none.
func RoleName(r Role) string {
	switch r {
	case Role_ROLE_WORKER:
		return "worker"
	case Role_ROLE_MEMBER:
		return "member"
	case Role_ROLE_ADMIN:
		return "admin"
	default:
		return ""
	}
}

// RoleWord returns the role with its article, for sentences.
func RoleWord(r Role) string {
	switch r {
	case Role_ROLE_WORKER:
		return "a worker"
	case Role_ROLE_MEMBER:
		return "a member"
	case Role_ROLE_ADMIN:
		return "an admin"
	default:
		return "a stranger"
	}
}

// CheckText reports whether texts from outside may be shown to people on a
// terminal: valid UTF-8 of printable characters.
func CheckText(texts ...string) bool {
	for _, t := range texts {
		if !printable(t) {
			return false
		}
	}
	return true
}
