package testlog

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ReadSource returns the events that the packages in folders log, as their code has them: of each the levels and the keys. A call
// that cannot be read fails the test: messages and keys are literals, or come from literals of the same function, or of the calls
// of that function in its package.
func ReadSource(t testing.TB, root string, folders ...string) map[string]*Event {
	t.Helper()
	all := map[string]*Event{}
	for _, folder := range folders {
		s := &source{t: t, files: token.NewFileSet(), events: all, reading: map[ast.Expr]bool{}}
		paths, err := fs.Glob(os.DirFS(root), folder+"/*.go")
		if err != nil || len(paths) == 0 {
			t.Fatalf("no code in %s: %v", folder, err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(s.files, filepath.Join(root, path), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
					s.functions = append(s.functions, fn)
				}
			}
		}
		for _, fn := range s.functions {
			s.read(fn)
		}
	}
	return all
}

// A source is the code of one package.
type source struct {
	t         testing.TB
	files     *token.FileSet
	functions []*ast.FuncDecl
	events    map[string]*Event
	bound     *binding          // while a function is read as one of its calls has it
	reading   map[ast.Expr]bool // what is being read, which may lead back to itself
}

// A binding is a call of a function.
type binding struct {
	of, in *ast.FuncDecl
	call   *ast.CallExpr
}

func (s *source) fail(n ast.Node, why string) {
	s.t.Helper()
	s.t.Errorf("%v: %s", s.files.Position(n.Pos()), why)
}

// logs returns what a method of a logger has before its keys, -1 for another function.
func logs(e ast.Expr) (method string, before int) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", -1
	}
	name := ""
	switch x := sel.X.(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	}
	if name = strings.ToLower(name); name != "log" && name != "logger" && name != "slog" {
		return "", -1
	}
	switch sel.Sel.Name {
	case "Debug", "Info", "Warn", "Error":
		return sel.Sel.Name, 1
	case "DebugContext", "InfoContext", "WarnContext", "ErrorContext":
		return strings.TrimSuffix(sel.Sel.Name, "Context"), 2
	case "Log", "LogAttrs":
		return "", 3
	}
	return "", -1
}

// read notes each event that a function logs.
func (s *source) read(fn *ast.FuncDecl) {
	called := map[ast.Expr]bool{}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			called[n.Fun] = true
			method, before := logs(n.Fun)
			if before < 0 || len(n.Args) < before {
				break
			}
			message, keys := n.Args[before-1], n.Args[before:]
			if id, ok := message.(*ast.Ident); ok {
				if at, _ := parameter(fn, id.Name); at >= 0 { // each call has its own keys as well
					s.calls(fn, func(in *ast.FuncDecl, c *ast.CallExpr) {
						s.bound = &binding{fn, in, c}
						s.note(fn, n, method, s.texts(in, c.Args[at]), keys)
						s.bound = nil
					})
					break
				}
			}
			s.note(fn, n, method, s.texts(fn, message), keys)
		case *ast.SelectorExpr:
			if _, before := logs(n); before >= 0 && !called[n] {
				s.fail(n, "a logger's method that is not called here: call it")
			}
		}
		return true
	})
}

// note notes what one call logs.
func (s *source) note(fn *ast.FuncDecl, n *ast.CallExpr, method string, messages []string, attrs []ast.Expr) {
	levels := []string{strings.ToLower(method)}
	if method == "" {
		levels = s.levels(fn, n.Args[1])
	}
	if len(messages) == 0 || len(levels) == 0 {
		s.fail(n, "the message or the level of this line is not to be read from here: give it as a literal")
	}
	keys := s.list(fn, attrs, n.Ellipsis != 0)
	for _, m := range messages {
		if s.events[m] == nil {
			s.events[m] = &Event{Message: m, Keys: map[string]bool{}}
		}
		e := s.events[m]
		for _, l := range levels {
			if !slices.Contains(e.Levels, l) {
				e.Levels = append(e.Levels, l)
			}
		}
		slices.Sort(e.Levels)
		for _, k := range keys {
			e.Keys[k] = true
		}
	}
}

// assigned returns what a function assigns to a variable of its own.
func assigned(fn *ast.FuncDecl, name string) (values []ast.Expr) {
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				if id, ok := l.(*ast.Ident); ok && id.Name == name && len(n.Rhs) == len(n.Lhs) {
					values = append(values, n.Rhs[i])
				}
			}
		case *ast.ValueSpec:
			for i, id := range n.Names {
				if id.Name == name && i < len(n.Values) {
					values = append(values, n.Values[i])
				}
			}
		}
		return true
	})
	return values
}

// parameter returns the place of a parameter, -1 for none, and whether it is what is left of the arguments.
func parameter(fn *ast.FuncDecl, name string) (at int, rest bool) {
	for _, p := range fn.Type.Params.List {
		_, variadic := p.Type.(*ast.Ellipsis)
		for _, id := range p.Names {
			if id.Name == name {
				return at, variadic
			}
			at++
		}
	}
	return -1, false
}

// calls has each call of a function in its package seen, with the function that it is in.
func (s *source) calls(of *ast.FuncDecl, see func(in *ast.FuncDecl, c *ast.CallExpr)) {
	for _, fn := range s.functions {
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok && name(c.Fun) == of.Name.Name {
				if _, logger := logs(c.Fun); logger < 0 {
					see(fn, c)
				}
			}
			return true
		})
	}
}

func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// texts returns what a string can be.
func (s *source) texts(fn *ast.FuncDecl, e ast.Expr) (all []string) {
	if s.reading[e] {
		return nil
	}
	s.reading[e] = true
	defer delete(s.reading, e)
	switch e := e.(type) {
	case *ast.BasicLit:
		if v, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return []string{v}
		}
	case *ast.BinaryExpr:
		if a, b := s.texts(fn, e.X), s.texts(fn, e.Y); e.Op == token.ADD && len(a) == 1 && len(b) == 1 {
			return []string{a[0] + b[0]}
		}
	case *ast.Ident:
		for _, v := range assigned(fn, e.Name) {
			all = append(all, s.texts(fn, v)...)
		}
		if at, _ := parameter(fn, e.Name); at >= 0 {
			s.calls(fn, func(in *ast.FuncDecl, c *ast.CallExpr) { all = append(all, s.texts(in, c.Args[at])...) })
		}
	case *ast.SelectorExpr: // a field, as literals of its struct have it
		for _, f := range s.functions {
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if kv, ok := n.(*ast.KeyValueExpr); ok && name(kv.Key) == e.Sel.Name {
					if lit, ok := kv.Value.(*ast.BasicLit); ok {
						all = append(all, s.texts(f, lit)...)
					}
				}
				return true
			})
		}
	}
	return all
}

func (s *source) levels(fn *ast.FuncDecl, e ast.Expr) (all []string) {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		if level, ok := strings.CutPrefix(e.Sel.Name, "Level"); ok && name(e.X) == "slog" {
			return []string{strings.ToLower(level)}
		}
	case *ast.Ident:
		for _, v := range assigned(fn, e.Name) {
			all = append(all, s.levels(fn, v)...)
		}
	}
	return all
}

// list returns the keys of arguments; ellipsis says that the last are spread.
func (s *source) list(fn *ast.FuncDecl, args []ast.Expr, ellipsis bool) (keys []string) {
	for i := 0; i < len(args); i++ {
		if ellipsis && i == len(args)-1 {
			return append(keys, s.spread(fn, args[i])...)
		}
		if c, ok := args[i].(*ast.CallExpr); ok && len(c.Args) > 0 { // slog.String and the like
			if sel, ok := c.Fun.(*ast.SelectorExpr); ok && name(sel.X) == "slog" {
				keys = append(keys, s.key(fn, c.Args[0])...)
				continue
			}
		}
		keys = append(keys, s.key(fn, args[i])...)
		i++
	}
	return keys
}

// key returns what a key can be: a literal, or a field of a table of the same function that has it first in each row.
func (s *source) key(fn *ast.FuncDecl, e ast.Expr) (keys []string) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return s.texts(fn, e)
	case *ast.SelectorExpr:
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if row, ok := n.(*ast.CompositeLit); ok && row.Type == nil && len(row.Elts) > 1 {
				keys = append(keys, s.texts(fn, row.Elts[0])...)
			}
			return true
		})
	}
	if len(keys) == 0 {
		s.fail(e, "the key is not to be read from here: give it as a literal")
	}
	return keys
}

// spread returns the keys of a list of attributes.
func (s *source) spread(fn *ast.FuncDecl, e ast.Expr) (keys []string) {
	if s.reading[e] {
		return nil
	}
	s.reading[e] = true
	defer delete(s.reading, e)
	switch e := e.(type) {
	case *ast.CompositeLit:
		return s.list(fn, e.Elts, false)
	case *ast.Ident:
		values := assigned(fn, e.Name)
		for _, v := range values {
			if c, ok := v.(*ast.CallExpr); ok && name(c.Fun) == "append" && name(c.Args[0]) == e.Name {
				keys = append(keys, s.list(fn, c.Args[1:], c.Ellipsis != 0)...)
			} else {
				keys = append(keys, s.spread(fn, v)...)
			}
		}
		if at, rest := parameter(fn, e.Name); rest && s.bound != nil && s.bound.of == fn {
			keys = append(keys, s.list(s.bound.in, s.bound.call.Args[at:], s.bound.call.Ellipsis != 0)...)
		} else if rest {
			s.calls(fn, func(in *ast.FuncDecl, c *ast.CallExpr) {
				keys = append(keys, s.list(in, c.Args[at:], c.Ellipsis != 0)...)
			})
		} else if values == nil && !result(fn, e.Name) {
			s.fail(e, "the keys are not to be read from here")
		}
	case *ast.CallExpr:
		switch name(e.Fun) {
		case "Concat":
			for _, part := range e.Args {
				keys = append(keys, s.spread(fn, part)...)
			}
			return keys
		case "append":
			return append(s.spread(fn, e.Args[0]), s.list(fn, e.Args[1:], e.Ellipsis != 0)...)
		}
		for _, f := range s.functions {
			if f.Name.Name == name(e.Fun) {
				keys = append(keys, s.returned(f)...)
			}
		}
		if len(keys) == 0 {
			s.fail(e, "the keys are not to be read from here")
		}
	}
	return keys
}

// result reports whether a name is of what the function returns.
func result(fn *ast.FuncDecl, name string) bool {
	if fn.Type.Results == nil {
		return false
	}
	return slices.ContainsFunc(fn.Type.Results.List, func(f *ast.Field) bool {
		return slices.ContainsFunc(f.Names, func(id *ast.Ident) bool { return id.Name == name })
	})
}

// returned returns the keys of the list that a function returns.
func (s *source) returned(fn *ast.FuncDecl) (keys []string) {
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 1 {
			keys = append(keys, s.spread(fn, r.Results[0])...)
		}
		return true
	})
	return keys
}
