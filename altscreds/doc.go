// Package altscreds gives Go programs ALTS on ordinary machines.
package altscreds
