package certbind

import (
	"fmt"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/names"
)

// ValidGroup reports why group, as the user database and programs write it, cannot be in the attribute "groups"
// (docs/spec/protocol.md, section 5.4): '@' and '\' only with allowDomain. The error holds no part of it.
func ValidGroup(group string, allowDomain bool) error {
	if err := names.ValidGroup(group); err != nil {
		return err
	}
	if !allowDomain && strings.ContainsAny(group, `@\`) {
		return curedBy(SettingDomainAccounts,
			`a group's name holds '@' or '\', which only machines that both allow domain accounts accept`)
	}
	return nil
}

// validGroups accepts the encoded names of groups, at least one, in strictly ascending order, joined by commas.
func validGroups(value string, allowDomain bool) error {
	groups, err := names.DecodeGroups(value)
	for i := 0; err == nil && i < len(groups); i++ {
		err = ValidGroup(groups[i], allowDomain)
	}
	if err != nil {
		return fmt.Errorf(`the attribute "groups" is not acceptable: %w`, err)
	}
	return nil
}
