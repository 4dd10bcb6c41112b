package execns

// An Error is a failure to which the caller has something to add: an exit status of its own, or which of its settings
// cures it.
type Error struct {
	Kind Kind
	Err  error
}

// A Kind tells the Errors apart.
type Kind int

// The kinds of failure.
const (
	NoDaemon    Kind = iota + 1 // nobody answers at Config.Socket
	Untrusted                   // somebody serves it whom the caller does not believe (rule 28)
	NoNamespace                 // the system does not let this account make namespaces, or mounts in them
	NotPrepared                 // what Config.Prepared promises is not there
)

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns what failed.
func (e *Error) Unwrap() error { return e.Err }
