package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Value is what an option takes: what the help calls it, what it sets, and what a shell offers for it.
type Value struct {
	arg     string // empty for a switch
	set     func(value string) error
	files   bool     // a shell offers the names of files
	choices []string // a shell offers these
}

// CompleteFiles returns v with the names of files offered for it.
func (v Value) CompleteFiles() Value {
	v.files = true
	return v
}

// CompleteChoices returns v with choices offered for it.
func (v Value) CompleteChoices(choices ...string) Value {
	v.choices = choices
	return v
}

// Func is a value that set takes. Its error says what a value has to be; the caller adds where the value came from.
func Func(arg string, set func(string) error) Value { return Value{arg: arg, set: set} }

// String sets p to any text but the empty one.
func String(p *string, arg string) Value { return text(arg, func(v string) { *p = v }) }

// Strings appends to p any text but the empty one.
func Strings(p *[]string, arg string) Value { return text(arg, func(v string) { *p = append(*p, v) }) }

func text(arg string, set func(string)) Value {
	return Func(arg, func(v string) error {
		if v == "" {
			return errors.New("empty: give a value")
		}
		set(v)
		return nil
	})
}

// File sets p to the name of a file.
func File(p *string) Value { return String(p, "FILE").CompleteFiles() }

// Files appends to p the name of a file.
func Files(p *[]string) Value { return Strings(p, "FILE").CompleteFiles() }

// Switch sets p to true, or to what the value says if one is given.
func Switch(p *bool) Value {
	return Func("", func(v string) error {
		switch v {
		case "true", "yes", "on":
			*p = true
		case "false", "no", "off":
			*p = false
		default:
			return fmt.Errorf("%q is neither true nor false: give one of them", v)
		}
		return nil
	})
}

// Int sets p to a number from least to most.
func Int(p *int, arg string, least, most int) Value {
	return Func(arg, func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a number from %d to %d", v, least, most)
		}
		*p = n
		return nil
	})
}

// Duration sets p to a duration from least to most.
func Duration(p *time.Duration, least, most time.Duration) Value {
	return Func("TIME", func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < least || d > most {
			return fmt.Errorf("%q is not a duration from %v to %v, such as 90s, 20m or 6h", v, least, most)
		}
		*p = d
		return nil
	})
}

// Choice sets p to one of choices.
func Choice(p *string, arg string, choices ...string) Value {
	return Func(arg, func(v string) error {
		if !slices.Contains(choices, v) {
			return fmt.Errorf("%q is not one of %s", v, strings.Join(choices, ", "))
		}
		*p = v
		return nil
	}).CompleteChoices(choices...)
}

// List sets p to the entries of a comma-separated list, each of which check has taken.
func List(p *[]string, arg string, check func(string) error) Value {
	return Func(arg, func(v string) error {
		var list []string
		for _, entry := range strings.Split(v, ",") {
			entry = strings.TrimSpace(entry)
			if err := check(entry); err != nil {
				return fmt.Errorf("%q: %w", entry, err)
			}
			list = append(list, entry)
		}
		*p = list
		return nil
	})
}
