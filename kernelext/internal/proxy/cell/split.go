package cell

import (
	"go/parser"
	"go/scanner"
	"go/token"
	"strings"
)

// part is a declaration or a statement at the top level of a cell: a range of bytes.
type part struct {
	from, to    int
	declaration bool
	keyword     token.Token // of a declaration
}

// split divides Go text at the semicolons of its top level, those that the language puts at line ends included.
func split(text string) []part {
	var parts []part
	files := token.NewFileSet()
	file := files.AddFile("", files.Base(), len(text))
	var s scanner.Scanner
	s.Init(file, []byte(text), func(token.Position, string) {}, 0)
	depth, from := 0, -1
	var first, second token.Token
	end := func(to int) {
		if from >= 0 {
			parts = append(parts, part{from, to, isDeclaration(text[from:to], first, second), first})
		}
		from, first, second = -1, token.ILLEGAL, token.ILLEGAL
	}
	for {
		pos, t, literal := s.Scan()
		at := file.Offset(pos)
		switch {
		case t == token.EOF:
			end(len(strings.TrimRight(text, " \t\r\n")))
			return parts
		case t == token.SEMICOLON && depth <= 0 && literal == "\n":
			end(at)
			continue
		case t == token.SEMICOLON && depth <= 0:
			end(at + 1)
			continue
		case from < 0:
			from, first = at, t
		case second == token.ILLEGAL:
			second = t
		}
		switch t {
		case token.LPAREN, token.LBRACE, token.LBRACK:
			depth++
		case token.RPAREN, token.RBRACE, token.RBRACK:
			depth--
		}
	}
}

func isDeclaration(text string, first, second token.Token) bool {
	switch first {
	case token.IMPORT, token.TYPE, token.CONST, token.VAR, token.PACKAGE:
		return true
	case token.FUNC:
		// A method begins like a function literal: func (t T) f() {} and func (t T) {}().
		return second == token.IDENT || second == token.LPAREN && parses("package p;"+text)
	}
	return false
}

func parses(text string) bool {
	_, err := parser.ParseFile(token.NewFileSet(), "", text, parser.SkipObjectResolution)
	return err == nil
}
