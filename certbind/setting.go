package certbind

import (
	"errors"
	"fmt"
)

// A Setting is something that a program hands this package and that its administrator chose. Errors and Faults that a
// change of one would cure bear it, so that the program can add how it is set; 0 is none.
type Setting int

const (
	SettingKey            Setting = iota + 1 // ParseCredential's keyPEM
	SettingMachineName                       // MachineConfig.Name
	SettingCAs                               // TrustConfig.CAs
	SettingCRLStaleOK                        // TrustConfig.CRLStaleOK
	SettingRequireEKU                        // TrustConfig.RequireEKU
	SettingOlderList                         // a CA's Mark, to be set back to an older list
	SettingForgetList                        // a CA's Mark, to be deleted
	SettingLists                             // TrustConfig.CRLs
	SettingCompleteList                      // CRLFile.Complete
	SettingDomainAccounts                    // TrustConfig.AllowDomainAccounts, and ValidAccount's allowDomain
)

// SettingOf returns the Setting that an error of this package bears, 0 if none is its cure.
func SettingOf(err error) Setting {
	var e *settingError
	if errors.As(err, &e) {
		return e.setting
	}
	return 0
}

type settingError struct {
	error
	setting Setting
}

func (e *settingError) Unwrap() error { return e.error }

// curedBy makes an error that bears the setting.
func curedBy(s Setting, format string, args ...any) error {
	return &settingError{fmt.Errorf(format, args...), s}
}
