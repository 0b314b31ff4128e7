package zmtp

import (
	"bytes"
	"sync"
	"time"
)

// PubSocket sends each message to all peers that subscribed to its first frame's beginning.
type PubSocket struct {
	*listener
	welcome func(topic []byte) [][]byte
	mu      sync.Mutex
	peers   map[*subscriber]bool
}

const (
	// maxQueued is what may wait for one subscriber. A front end that reads has nothing waiting.
	maxQueued = 64 << 20
	// subscriberPatience is how long the kernel waits for a subscriber whose queue is full: nothing is dropped silently, and a dead peer does not
	// stop the kernel for ever. After that its connection is closed, which it sees.
	subscriberPatience = 20 * time.Second
	maxTopics          = 64
)

// ListenPub opens a PUB socket. welcome, if not nil, returns what a new subscriber gets first.
func ListenPub(network, address string, welcome func(topic []byte) [][]byte) (*PubSocket, error) {
	p := &PubSocket{welcome: welcome, peers: map[*subscriber]bool{}}
	var err error
	if p.listener, err = listen(network, address, Pub, Limits{Message: 1 << 12, Frames: 1}, p.serve); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *PubSocket) serve(c *Conn) {
	s := &subscriber{conn: c}
	s.changed = sync.NewCond(&s.mu)
	p.mu.Lock()
	p.peers[s] = true
	p.mu.Unlock()
	go s.send()
	defer func() {
		p.mu.Lock()
		delete(p.peers, s)
		p.mu.Unlock()
		s.close()
	}()
	for {
		frames, err := c.Receive()
		if err != nil {
			if err == ErrTooLarge {
				continue
			}
			return
		}
		if len(frames[0]) > 0 && !s.subscribe(frames[0][0] == 1, frames[0][1:]) {
			return
		}
		if len(frames[0]) > 0 && frames[0][0] == 1 && p.welcome != nil {
			if m := p.welcome(frames[0][1:]); m != nil {
				s.enqueue(m)
			}
		}
	}
}

// Send queues a message for all subscribers to its first frame.
func (p *PubSocket) Send(frames ...[]byte) {
	p.mu.Lock()
	peers := make([]*subscriber, 0, len(p.peers))
	for s := range p.peers {
		peers = append(peers, s)
	}
	p.mu.Unlock()
	for _, s := range peers {
		if s.wants(frames[0]) {
			s.enqueue(frames)
		}
	}
}

// Subscribed reports whether anybody listens.
func (p *PubSocket) Subscribed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.peers {
		s.mu.Lock()
		n := len(s.topics)
		s.mu.Unlock()
		if n > 0 {
			return true
		}
	}
	return false
}

// Flush waits until all that was sent has been handed to the system, for patience at most.
func (p *PubSocket) Flush(patience time.Duration) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		waiting := false
		for s := range p.peers {
			waiting = waiting || s.waiting()
		}
		p.mu.Unlock()
		if !waiting {
			return
		}
	}
}

// subscriber is a peer of a PUB socket, with its queue.
type subscriber struct {
	conn    *Conn
	mu      sync.Mutex
	changed *sync.Cond
	topics  [][]byte
	queue   [][][]byte
	bytes   int // in the queue, and being sent
	sending bool
	closed  bool
}

// subscribe adds or removes a topic; false: there are too many.
func (s *subscriber) subscribe(add bool, topic []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if add {
		s.topics = append(s.topics, topic)
		return len(s.topics) <= maxTopics
	}
	for i, t := range s.topics {
		if bytes.Equal(t, topic) {
			s.topics = append(s.topics[:i:i], s.topics[i+1:]...)
			break
		}
	}
	return true
}

func (s *subscriber) wants(topic []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.topics {
		if bytes.HasPrefix(topic, t) {
			return true
		}
	}
	return false
}

func (s *subscriber) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && (len(s.queue) > 0 || s.sending)
}

func (s *subscriber) enqueue(frames [][]byte) {
	size := 0
	for _, f := range frames {
		size += len(f)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.bytes > 0 && s.bytes+size > maxQueued {
		giveUp := time.AfterFunc(subscriberPatience, s.close)
		for !s.closed && s.bytes > 0 && s.bytes+size > maxQueued {
			s.changed.Wait()
		}
		giveUp.Stop()
	}
	if s.closed {
		return
	}
	s.queue = append(s.queue, frames)
	s.bytes += size
	s.changed.Broadcast()
}

// send hands the queue to the peer.
func (s *subscriber) send() {
	for {
		s.mu.Lock()
		for !s.closed && len(s.queue) == 0 {
			s.changed.Wait()
		}
		if s.closed {
			s.mu.Unlock()
			return
		}
		batch := s.queue
		s.queue, s.sending = nil, true
		s.mu.Unlock()
		for _, frames := range batch {
			size := 0
			for _, f := range frames {
				size += len(f)
			}
			if s.conn.Send(frames...) != nil {
				s.close()
				return
			}
			s.mu.Lock()
			s.bytes -= size
			s.changed.Broadcast()
			s.mu.Unlock()
		}
		s.mu.Lock()
		s.sending = false
		s.mu.Unlock()
	}
}

func (s *subscriber) close() {
	_ = s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.queue = true, nil
	s.changed.Broadcast()
}
