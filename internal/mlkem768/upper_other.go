//go:build !amd64

package mlkem768

func leaveVectors() {}
