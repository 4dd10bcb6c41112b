package names

// The application protocol altsd-tcp/1 (docs/spec/protocol.md, section 9). What follows the prefix is the service's name.
const (
	ServiceFamily = "altsd-tcp/"
	ServicePrefix = ServiceFamily + "1:"
)
