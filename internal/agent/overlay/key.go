package overlay

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// key is this node's WireGuard key. It is drawn here and never leaves the machine.
type key struct {
	private wgtypes.Key
	// generation is the NodeSpec.key_generation that it was drawn for.
	generation uint64
	drawn      time.Time
	// until is when it is old: at a random point of the last tenth of its life, so that nodes that were made together
	// do not all replace theirs together.
	until time.Time
}

// keyFile is the record of a key.
type keyFile struct {
	Private    wgtypes.Key `json:"private"`
	Generation uint64      `json:"generation"`
	Drawn      time.Time   `json:"drawn"`
}

// keyIsOld tells whether the key is to be replaced, now that others would hear of it.
func (v *Overlay) keyIsOld(c *warrenv1.NetworkConfig) bool {
	if v.own == (key{}) || !v.attending.Load() {
		return false
	}
	return v.own.generation < c.GetKeyGeneration() || !time.Now().Before(v.own.until)
}

// rotationAlarm goes off when the key is old.
func (v *Overlay) rotationAlarm() *alarm {
	a := newAlarm()
	if v.own != (key{}) && v.attending.Load() {
		a.set(max(0, time.Until(v.own.until)))
	}
	return a
}

// takeKey returns the key to use: the recorded one, or where there is none or it is old, a new one, which is on disk
// before anybody hears of it.
func (v *Overlay) takeKey(c *warrenv1.NetworkConfig) (key, error) {
	life := c.GetKeyLife().AsDuration()
	if v.own == (key{}) {
		value, err := v.Record.Network(keyRecord)
		if err != nil {
			return key{}, fmt.Errorf("read the WireGuard key: %w", err)
		}
		var file keyFile
		if len(value) > 0 {
			if err := json.Unmarshal(value, &file); err != nil {
				v.Logger.Error("the recorded WireGuard key cannot be read: drawing another", "error", err)
			} else {
				v.own = key{file.Private, file.Generation, file.Drawn, expiry(file.Drawn, life)}
			}
		}
	}
	if v.own != (key{}) && !v.keyIsOld(c) {
		return v.own, nil
	}
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return key{}, fmt.Errorf("draw a WireGuard key: %w", err)
	}
	drawn := time.Now()
	value, err := json.Marshal(keyFile{private, c.GetKeyGeneration(), drawn})
	if err != nil {
		return key{}, err
	}
	if err := v.Record.RecordNetwork(keyRecord, value); err != nil {
		return key{}, fmt.Errorf("record the WireGuard key: %w", err)
	}
	v.own = key{private, c.GetKeyGeneration(), drawn, expiry(drawn, life)}
	v.Logger.Info("drew a WireGuard key", "public", private.PublicKey().String(), "generation", v.own.generation)
	return v.own, nil
}

func expiry(drawn time.Time, life time.Duration) time.Time {
	return drawn.Add(life - time.Duration(rand.Int64N(int64(life/10)+1)))
}
