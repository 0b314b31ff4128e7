package rewrite

import (
	"go/ast"
	"go/token"
	"go/types"
)

// constant tells whether evaluating a variable's declaration again can give nothing but what it holds: it is a literal without pointers, of functions for
// instance, and the program does not assign to it.
func (pl *plan) constant(v *variable) bool {
	s, there := pl.g.specs[v.object]
	return there && len(s.Names) == 1 && len(s.Values) == 1 && plain(v.object.Type(), map[types.Type]bool{}) && pl.literal(s.Values[0]) && !pl.assigned(v.object)
}

// plain tells whether a copy of a value of a type shares nothing with it that can change.
func plain(t types.Type, seen map[types.Type]bool) bool {
	if seen[t] {
		return true
	}
	seen[t] = true
	switch t := t.Underlying().(type) {
	case *types.Basic, *types.Signature:
		return true
	case *types.Array:
		return plain(t.Elem(), seen)
	case *types.Struct:
		for i := range t.NumFields() {
			if !plain(t.Field(i).Type(), seen) {
				return false
			}
		}
		return true
	}
	return false
}

// literal tells whether an expression reads no variable of the notebook and calls nothing. What its functions do when they are called is another matter.
func (pl *plan) literal(e ast.Expr) bool {
	is := true
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.CallExpr:
			is = is && pl.p.info.Types[n.Fun].IsType() // a conversion
		case *ast.UnaryExpr:
			is = is && n.Op != token.AND && n.Op != token.ARROW
		case *ast.Ident:
			o, isVar := pl.p.info.Uses[n].(*types.Var)
			is = is && (!isVar || o.IsField() || o.Pkg() != pl.p.pkg)
		}
		return is
	})
	return is
}

// assigned tells whether the program assigns to a variable or to a part of it, or takes its address.
func (pl *plan) assigned(v types.Object) bool {
	found := false
	to := func(e ast.Expr) { found = found || pl.p.info.Uses[root(e)] == v }
	ast.Inspect(pl.p.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				to(left)
			}
		case *ast.IncDecStmt:
			to(n.X)
		case *ast.RangeStmt:
			to(n.Key)
			to(n.Value)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				to(n.X)
			}
		case *ast.SelectorExpr: // v.Method() may take its address
			if s := pl.p.info.Selections[n]; s != nil && s.Kind() != types.FieldVal {
				if f, ok := s.Obj().(*types.Func); ok {
					if _, pointer := f.Signature().Recv().Type().(*types.Pointer); pointer {
						to(n.X)
					}
				}
			}
		}
		return !found
	})
	return found
}

// root returns the identifier that an expression is a part of, or nil.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.ParenExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		default:
			return nil
		}
	}
}
