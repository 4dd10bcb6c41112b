package signer

// Away answers a request where there is no Signer yet, since its key cannot be opened.
func Away(why error) []byte {
	return (&answer{outcome: keyFailed, text: why.Error()}).encode()
}
