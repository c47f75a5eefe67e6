package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

// errNothingChanged is the answer to a question that was not answered with yes.
var errNothingChanged = errors.New("nothing was changed")

// confirm asks the person at the terminal; without one only --yes will do.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	answer, err := a.ask(question + " [y/N] ")
	if err != nil {
		return err
	}
	switch strings.ToLower(answer) {
	case "y", "yes":
		return nil
	}
	return errNothingChanged
}

// confirmWord is confirm for what has to be meant: it asks for a word.
func (a *app) confirmWord(yes bool, question, word string) error {
	if yes {
		return nil
	}
	answer, err := a.ask(question)
	if err == nil && answer != word {
		err = errNothingChanged
	}
	return err
}

// ask puts a question to the person at the terminal, and returns the answer.
func (a *app) ask(question string) (string, error) {
	if !isTerminal(a.in) {
		return "", usagef("this needs a confirmation: say --yes, or use a terminal")
	}
	fmt.Fprint(a.err, question)
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && answer == "" {
		return "", fmt.Errorf("%w: no answer came", errNothingChanged)
	}
	return strings.TrimSpace(answer), nil
}
