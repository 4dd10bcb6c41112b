// Package device is what machine keys in devices have in common, whatever the device: one operation at a time, which the
// caller need not wait for; a device that was lost is opened anew; the PIN or passphrase, which is never tried twice once it
// was refused; and the padding of RSA where the device has none that fits.
package device
