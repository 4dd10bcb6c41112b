package cli

import "slices"

// A Part is one of several files that are read as one.
type Part struct {
	Path string
	Data []byte
}

// add returns settings with those of one more file. What it says of a name stands in the place of what was said before; of a
// name that may be repeated both hold, unless the file begins it anew by a line without a value.
func (f *ConfigFile) add(settings []setting, p Part) ([]setting, error) {
	more, err := parseConfig(p.Data, p.Path)
	if err != nil {
		return nil, err
	}
	options := f.Options()
	repeats := func(s setting) bool {
		o := find(options, s.name)
		return o != nil && o.Repeat
	}
	anew := func(s setting) bool { return s.value == "" && repeats(s) }
	for i, s := range more {
		// A value that a template left out must not take revocation lists away.
		if anew(s) && !slices.ContainsFunc(more[i:], func(t setting) bool { return t.name == s.name && t.value != "" }) {
			return nil, Usagef("%s: empty: give below it what is to stand in the place of all before, or take the line out", s.origin)
		}
	}
	if err := checkSettings(f.Options(), slices.DeleteFunc(slices.Clone(more), anew)); err != nil {
		return nil, err
	}
	for _, s := range more {
		if anew(s) || !repeats(s) {
			settings = slices.DeleteFunc(settings, func(t setting) bool { return t.name == s.name })
		}
		if !anew(s) {
			settings = append(settings, s)
		}
	}
	return settings, nil
}
