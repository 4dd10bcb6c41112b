{
	"subject": {{ toJson .Subject }},
	"sans": {{ toJson .SANs }},
	"keyUsage": ["digitalSignature"],
	"extKeyUsage": ["serverAuth", "clientAuth"],
	"unknownExtKeyUsage": ["1.2.840.113556.1.8000.2554.45235.41889.10940.18232.36456.13814429.8615383"]
}
