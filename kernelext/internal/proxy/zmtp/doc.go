// Package zmtp speaks ZMTP 3.0 (https://rfc.zeromq.org/spec/23/) with the NULL mechanism: as much of ZeroMQ as a Jupyter kernel needs.
//
// It is our own because the one pure-Go library there is, go-zeromq/zmq4 v0.17.0, trusts its peers: it allocates what a frame's header claims
// (a header of nine bytes ends the process), slices a peer's metadata unchecked, lets a peer that says nothing keep all others from connecting, and
// one slow subscriber hold up all others. GoNB stands on it, which is one reason for a proxy in front.
//
// Here sizes are checked before memory is taken, memory is taken as bytes arrive, every step of a peer has a deadline, and queues are bounded.
package zmtp
