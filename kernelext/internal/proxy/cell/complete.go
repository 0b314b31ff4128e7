package cell

import (
	"go/scanner"
	"go/token"
	"strings"
)

// Completeness of a cell, in the protocol's words.
type Completeness string

// What a cell can be while it is typed.
const (
	Complete   Completeness = "complete"
	Incomplete Completeness = "incomplete"
	Invalid    Completeness = "invalid"
)

// IsComplete says whether a cell can be run, wants more lines, or is wrong however it goes on; and how far the next line is to be indented.
func IsComplete(source string) (Completeness, string) {
	c, err := Read(source)
	if len(c.Lines) > 0 && strings.HasSuffix(c.Lines[len(c.Lines)-1], `\`) {
		return Incomplete, "" // a command that goes on
	}
	if err == nil {
		return Complete, ""
	}
	text := c.goText()
	files := token.NewFileSet()
	file := files.AddFile("", files.Base(), len(text))
	var s scanner.Scanner
	open, wrong := false, false
	s.Init(file, []byte(text), func(_ token.Position, message string) {
		// A comment or a raw string can be closed on a line to come.
		if strings.Contains(message, "comment not terminated") || strings.Contains(message, "raw string literal not terminated") {
			open = true
		} else {
			wrong = true
		}
	}, 0)
	var stack []token.Token
	last := token.ILLEGAL
	for {
		_, t, literal := s.Scan()
		if t == token.EOF {
			break
		}
		if t == token.SEMICOLON && literal == "\n" {
			continue
		}
		last = t
		switch t {
		case token.LPAREN, token.LBRACE, token.LBRACK:
			stack = append(stack, t)
		case token.RPAREN, token.RBRACE, token.RBRACK:
			opening := map[token.Token]token.Token{token.RPAREN: token.LPAREN, token.RBRACE: token.LBRACE, token.RBRACK: token.LBRACK}[t]
			if len(stack) == 0 || stack[len(stack)-1] != opening {
				return Invalid, ""
			}
			stack = stack[:len(stack)-1]
		}
	}
	switch {
	case wrong:
		return Invalid, ""
	case open:
		return Incomplete, ""
	case len(stack) > 0 || wantsMore(last):
		return Incomplete, strings.Repeat("\t", min(len(stack), 16))
	}
	return Invalid, ""
}

// wantsMore says whether nothing can end with a token.
func wantsMore(t token.Token) bool {
	switch t {
	case token.RPAREN, token.RBRACE, token.RBRACK, token.INC, token.DEC, token.SEMICOLON, token.ELLIPSIS:
		return false
	case token.IMPORT, token.TYPE, token.CONST, token.VAR, token.FUNC, token.ELSE, token.GO, token.DEFER:
		return true
	}
	return t.IsOperator()
}
