package main

import "testing"

// What grows with handshakes is found, what varies is not taken for it.
func TestFlat(t *testing.T) {
	var steady, memory, threads, descriptors []look
	for i := range 40 {
		steady = append(steady, look{30000 + 9000*(i%3), 12 + i%2, 20 + 16*(i%4)})
		memory = append(memory, look{30000 + 400*i + 9000*(i%3), 12, 20})
		threads = append(threads, look{30000, 12 + i, 20})
		descriptors = append(descriptors, look{30000, 12, 20 + i + 16*(i%4)})
	}
	if err := flat(steady); err != nil {
		t.Error(err)
	}
	for name, looks := range map[string][]look{"memory": memory, "threads": threads, "descriptors": descriptors, "few": steady[:7]} {
		if flat(looks) == nil {
			t.Errorf("%s: nothing is said", name)
		}
	}
}
