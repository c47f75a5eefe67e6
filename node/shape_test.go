package node_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The bounds of docs/contributing.md. It is the size of the tail that makes a
// code base bad: most functions are a quarter of this, most files a third.
const (
	maxFunctionLines = 70
	maxFileLines     = 600
)

// source is a Go file of the module.
type source struct {
	name  string // with slashes, from the module's root on
	text  []byte
	fset  *token.FileSet
	file  *ast.File
	tests bool
}

// line returns the line of a position.
func (s *source) line(p token.Pos) int { return s.fset.Position(p).Line }

// lines returns how many lines a node has.
func (s *source) lines(n ast.Node) int { return s.line(n.End()) - s.line(n.Pos()) + 1 }

// sources reads every Go file that people wrote: what generators wrote is
// theirs to shape.
func sources(t *testing.T) []*source {
	t.Helper()
	var all []*source
	for _, name := range goFiles(t) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if !ast.IsGenerated(file) {
			all = append(all, &source{name, text, fset, file, strings.HasSuffix(name, "_test.go")})
		}
	}
	return all
}

func TestFilesStayShort(t *testing.T) {
	for _, s := range sources(t) {
		if n := strings.Count(string(s.text), "\n"); n > maxFileLines {
			t.Errorf("%s has %d lines, over the %d of the house style: it holds more than one thought; give each its own file", s.name, n, maxFileLines)
		}
	}
}

func TestFunctionsStayShort(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || s.tests {
				continue
			}
			if n := s.lines(f); n > maxFunctionLines {
				t.Errorf("%s:%d: %s has %d lines, over the %d of the house style: name its steps and make them functions",
					s.name, s.line(f.Pos()), f.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

func TestNothingRunsBeforeMain(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s:%d: init runs whether its program wants it or not, and nothing can test it: make it a function that main, or a constructor, calls",
					s.name, s.line(f.Pos()))
			}
		}
	}
}

// constants are package variables that nothing changes and that Go has no way
// to write as constants.
var constants = map[string]bool{
	"p2p.textEncoding":      true,
	"p2p/wire.peerIDPrefix": true,
}

func TestPackagesHaveNoVariables(t *testing.T) {
	for _, s := range sources(t) {
		if s.tests {
			continue
		}
		for _, name := range variables(s.file) {
			full := path.Dir(s.name) + "." + name.Name
			if short := strings.ToLower(name.Name); name.Name == "_" || strings.HasPrefix(short, "err") || constants[full] {
				continue
			}
			t.Errorf("%s:%d: the package variable %s: two nodes in one process would share it, and tests too; give it an owner. Errors (err…) and embedded files are no variables; a constant that Go cannot write as one goes into this test's list",
				s.name, s.line(name.Pos()), name.Name)
		}
	}
}

// variables returns the names of a file's package variables, embedded files
// apart.
func variables(file *ast.File) (names []*ast.Ident) {
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR || embeds(g.Doc) {
			continue
		}
		for _, spec := range g.Specs {
			names = append(names, spec.(*ast.ValueSpec).Names...)
		}
	}
	return names
}

func embeds(doc *ast.CommentGroup) bool {
	if doc == nil {
		return false
	}
	for _, c := range doc.List {
		if strings.HasPrefix(c.Text, "//go:embed ") {
			return true
		}
	}
	return false
}

// readers of the environment below cmd, and why.
var readers = map[string]string{
	"node/sandbox/child.go":    "the variable is how a child knows that it is one",
	"node/sandbox/process.go":  "a child gets the few variables that its system needs, and none of the node's others",
	"browserbridge/process.go": "both, for the process of the WebRTC stack",
	"node/profile.go":          "a notebook's host says by a variable what it is: a fact of the machine, as its cores are",
}

func TestOnlyProgramsReadTheEnvironment(t *testing.T) {
	for _, s := range sources(t) {
		if s.tests || strings.HasPrefix(s.name, "cmd/") || readers[s.name] != "" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := call.X.(*ast.Ident); ok && pkg.Name == "os" {
				switch call.Sel.Name {
				case "Getenv", "LookupEnv", "Environ", "ExpandEnv":
					t.Errorf("%s:%d: os.%s: nothing below cmd reads the environment, or two nodes in one process could not differ; make it a field of the configuration",
						s.name, s.line(call.Pos()), call.Sel.Name)
				}
			}
			return true
		})
	}
}

// unfinished matches what people leave in comments for later.
var unfinished = regexp.MustCompile(`\b(` + strings.Join([]string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"}, "|") + `)\b`)

func TestNothingIsLeftForLaterInAComment(t *testing.T) {
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if mark := unfinished.FindString(c.Text); mark != "" {
					t.Errorf("%s:%d: %s: do it now, or write it into an issue, where someone will find it", s.name, s.line(c.Pos()), mark)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	said := make(map[string]bool)
	for _, s := range sources(t) {
		if s.tests {
			continue
		}
		pkg := path.Dir(s.name)
		doc := strings.Join(strings.Fields(s.file.Doc.Text()), " ")
		begin := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			begin = "" // programs begin with their name, in whatever words
		}
		said[pkg] = said[pkg] || doc != "" && strings.HasPrefix(doc, begin)
	}
	for pkg, ok := range said {
		if !ok {
			t.Errorf("package %s has no comment that begins \"Package NAME\": say in its doc.go what it is for, what it leaves to others, and who calls it", pkg)
		}
	}
}

func TestEveryExportedNameStatesItsContract(t *testing.T) {
	for _, s := range sources(t) {
		if s.tests {
			continue
		}
		for _, d := range s.file.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s:%d: %s has no comment: state its contract there (units, bounds, errors, who may call it when)", s.name, s.line(name.Pos()), name.Name)
			}
		}
	}
}

// undocumented returns the exported names that a declaration makes and that no
// comment, of their own or of their group, speaks of. Methods count if their
// type is exported: others cannot be seen from outside.
func undocumented(d ast.Decl) (names []*ast.Ident) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if d.Doc == nil && spec.Doc == nil && spec.Name.IsExported() {
					names = append(names, spec.Name)
				}
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					if d.Doc == nil && spec.Doc == nil && spec.Comment == nil && name.IsExported() {
						names = append(names, name)
					}
				}
			}
		}
	}
	return names
}

// exportedReceiver reports whether a function has no receiver, or one of an
// exported type.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	receiver := f.Recv.List[0].Type
	for {
		switch r := receiver.(type) {
		case *ast.StarExpr:
			receiver = r.X
		case *ast.IndexExpr:
			receiver = r.X
		case *ast.IndexListExpr:
			receiver = r.X
		case *ast.Ident:
			return r.IsExported()
		default:
			return true
		}
	}
}
