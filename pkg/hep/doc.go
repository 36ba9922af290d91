// Package hep hears the copy that Asterisk's res_hep.so sends of each SIP message, TLS and WSS included: packets of the
// Homer Encapsulation Protocol, version 3.
//
// The format is that of Asterisk's res/res_hep.c, and of sipcapture's document HEP3 (rev 12): all numbers are big
// endian.
package hep
