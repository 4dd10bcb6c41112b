package resolve

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

const (
	typeTLSA   = dnsmessage.Type(52)
	maxAliases = 8
	// payload is what a resolver may send by UDP: what passes everywhere without fragments (DNS flag day 2020).
	payload = 1232

	optionEDE     = 15 // RFC 8914
	staleAnswer   = 3
	staleNXDOMAIN = 19
)

// A question is what is asked of the resolver, once.
type question struct {
	dnsmessage.Question
	id uint16
}

// newQuestion returns the question for the records of a kind at a name, which has its final dot.
func newQuestion(name string, kind dnsmessage.Type, id uint16) (*question, error) {
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, err
	}
	return &question{dnsmessage.Question{Name: n, Type: kind, Class: dnsmessage.ClassINET}, id}, nil
}

// pack returns the message that asks: recursion, and DNSSEC of who has checked it.
func (q *question) pack() ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: q.id, RecursionDesired: true})
	var opt dnsmessage.ResourceHeader
	err := errors.Join(b.StartQuestions(), b.Question(q.Question), b.StartAdditionals(),
		opt.SetEDNS0(payload, dnsmessage.RCodeSuccess, true), b.OPTResource(opt, dnsmessage.OPTResource{}))
	if err != nil {
		return nil, err
	}
	return b.Finish()
}

// answeredBy reports whether a message answers this question and no other one, and whether it is cut short.
func (q *question) answeredBy(msg []byte) (is, truncated bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.OpCode != 0 || h.ID != q.id {
		return false, false
	}
	asked, err := p.AllQuestions()
	is = err == nil && len(asked) == 1 && asked[0].Type == q.Type && asked[0].Class == q.Class && same(asked[0].Name, q.Name)
	return is, is && h.Truncated
}

// same reports whether two names are one.
func same(a, b dnsmessage.Name) bool { return ascii.Lower(a.String()) == ascii.Lower(b.String()) }

// A reply is what an answer to a question says.
type reply struct {
	code    dnsmessage.RCode
	ad      bool
	ttl     time.Duration
	records [][]byte // at the end of the aliases
	why     string   // the resolver's own words of what is wrong, if it has any
	stale   bool     // it says that this is no longer so, or that it could not ask
}

// records are what a section has, as far as it matters here.
type records struct {
	aliases map[string]alias
	wanted  []record
}

type alias struct {
	to  dnsmessage.Name
	ttl uint32
}

type record struct {
	name dnsmessage.Name
	ttl  uint32
	data []byte
}

// read reads an answer to q.
func (q *question) read(msg []byte) (*reply, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil {
		return nil, err
	}
	r := &reply{code: h.RCode, ad: h.AuthenticData}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, err
	}
	found, err := q.answers(&p)
	if err != nil {
		return nil, err
	}
	negative, err := negativeTTL(&p)
	if err != nil {
		return nil, err
	}
	if err := r.readOPT(&p); err != nil {
		return nil, err
	}
	r.ttl = MaxTTL
	at := q.Name
	for n := 0; ; n++ {
		next, ok := found.aliases[ascii.Lower(at.String())]
		if !ok {
			break
		}
		if n == maxAliases {
			return nil, fmt.Errorf("more than %d aliases", maxAliases)
		}
		at, r.ttl = next.to, min(r.ttl, seconds(next.ttl))
	}
	for _, w := range found.wanted {
		if same(w.name, at) {
			r.records, r.ttl = append(r.records, w.data), min(r.ttl, seconds(w.ttl))
		}
	}
	if len(r.records) == 0 {
		r.ttl = min(r.ttl, seconds(negative))
	}
	return r, nil
}

// seconds is a TTL. One with the highest bit counts as none (RFC 2181, section 8).
func seconds(ttl uint32) time.Duration {
	if ttl >= 1<<31 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// answers reads the answer section: aliases, and records of the type asked for.
func (q *question) answers(p *dnsmessage.Parser) (*records, error) {
	found := &records{aliases: map[string]alias{}}
	for {
		h, err := p.AnswerHeader()
		switch {
		case errors.Is(err, dnsmessage.ErrSectionDone):
			return found, nil
		case err != nil:
			return nil, err
		case h.Class != dnsmessage.ClassINET:
			err = p.SkipAnswer()
		case h.Type == q.Type:
			var body dnsmessage.UnknownResource
			body, err = p.UnknownResource()
			if len(found.wanted) == MaxRecords {
				return nil, fmt.Errorf("more than %d records", MaxRecords)
			}
			found.wanted = append(found.wanted, record{h.Name, h.TTL, body.Data})
		case h.Type == dnsmessage.TypeCNAME:
			var body dnsmessage.CNAMEResource
			body, err = p.CNAMEResource()
			name := ascii.Lower(h.Name.String())
			if have, twice := found.aliases[name]; twice && !same(have.to, body.CNAME) {
				return nil, errors.New("a name that is an alias of two")
			}
			if found.aliases[name] = (alias{body.CNAME, h.TTL}); len(found.aliases) > maxAliases {
				return nil, fmt.Errorf("more than %d aliases", maxAliases)
			}
		default: // signatures, and the DNAMEs of which the resolver has made CNAMEs
			err = p.SkipAnswer()
		}
		if err != nil {
			return nil, err
		}
	}
}

// negativeTTL reads the authority section: for how long there is nothing (RFC 2308, section 5).
func negativeTTL(p *dnsmessage.Parser) (ttl uint32, err error) {
	for {
		h, err := p.AuthorityHeader()
		switch {
		case errors.Is(err, dnsmessage.ErrSectionDone):
			return ttl, nil
		case err != nil:
			return 0, err
		case h.Type == dnsmessage.TypeSOA && h.Class == dnsmessage.ClassINET:
			soa, err := p.SOAResource()
			if err != nil {
				return 0, err
			}
			ttl = min(h.TTL, soa.MinTTL)
		default:
			if err := p.SkipAuthority(); err != nil {
				return 0, err
			}
		}
	}
}

// readOPT reads the additional section: the rest of the code, and what the resolver says of errors.
func (r *reply) readOPT(p *dnsmessage.Parser) error {
	seen := false
	for {
		h, err := p.AdditionalHeader()
		switch {
		case errors.Is(err, dnsmessage.ErrSectionDone):
			return nil
		case err != nil:
			return err
		case h.Type != dnsmessage.TypeOPT:
			if err := p.SkipAdditional(); err != nil {
				return err
			}
			continue
		case seen:
			return errors.New("two OPT records")
		}
		seen = true
		r.code = h.ExtendedRCode(r.code)
		opt, err := p.OPTResource()
		if err != nil {
			return err
		}
		for _, o := range opt.Options {
			if o.Code != optionEDE || len(o.Data) < 2 {
				continue
			}
			code := int(o.Data[0])<<8 | int(o.Data[1])
			r.stale = r.stale || code == staleAnswer || code == staleNXDOMAIN
			if r.why == "" { // the first is the cause
				r.why = extended(code, string(o.Data[2:]))
			}
		}
	}
}

// extendedErrors are the codes of RFC 8914 that tell why a resolver believes nothing.
var extendedErrors = map[int]string{1: "unsupported DNSKEY algorithm", 2: "unsupported DS digest type", staleAnswer: "stale answer", 5: "DNSSEC indeterminate",
	6: "DNSSEC bogus", 7: "signature expired", 8: "signature not yet valid", 9: "DNSKEY missing", 10: "signatures missing",
	11: "no zone key", 12: "proof of absence missing", 13: "cached error", 15: "blocked", 18: "prohibited", staleNXDOMAIN: "stale absence", 22: "no authority reachable",
	23: "network error"}

// extended returns an extended error in words.
func extended(code int, text string) string {
	words, known := extendedErrors[code]
	if !known {
		words = fmt.Sprintf("extended error %d", code)
	}
	if text = strings.TrimRight(text, "\x00"); text != "" {
		words += ": " + text
	}
	return words
}
