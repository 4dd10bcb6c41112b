package mlkem768

import "golang.org/x/sys/cpu"

// zeroUpper clears the upper halves of the vector registers (VZEROUPPER). It needs AVX.
func zeroUpper()

// leaveVectors is to be called after each use of the library. Its AVX2 code leaves the upper halves of the registers as they are,
// parts of secrets among them, and with these in use SHA-256's instructions, which are of the older kind, take a hundred times as long on
// some processors, for as long as nobody clears them. A goroutine that is preempted in between takes that to the next one of its thread, which
// costs time alone.
func leaveVectors() {
	if cpu.X86.HasAVX2 {
		zeroUpper()
	}
}
