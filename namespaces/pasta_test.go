package namespaces

import (
	"fmt"
	"strings"
	"testing"
)

func TestPastaOptions(t *testing.T) {
	const always = "--config-net --no-map-gw --ns-ifname e --tcp-ns none --udp-ns none "
	const closed = "--tcp-ports none --udp-ports none"
	for _, test := range []struct{ words, want string }{
		{"address=auto", always + closed},
		{"address=auto,masquerade,dns=none,hosts", always + closed},
		{"address=auto,publish=8080:80/tcp,publish=53:53/udp,publish=127.0.0.1:8081:81/tcp", always + "--tcp-ports 8080:80 --tcp-ports 127.0.0.1/8081:81 --udp-ports 53:53"},
		{"address=10.0.0.2/24,gateway=10.0.0.1,mtu=1400,mac=02:00:00:00:00:0a", always + closed + " --mtu 1400 --ns-mac-addr 02:00:00:00:00:0a --address 10.0.0.2 --gateway 10.0.0.1 --netmask 24 --ipv4-only"},
		{"address=fd00::2/64,gateway=fd00::1", always + closed + " --address fd00::2 --gateway fd00::1 --ipv6-only"},
		{"address=fd00::2/64,gateway=fd00::1,address=10.0.0.2/8,gateway=10.0.0.1", always + closed + " --address fd00::2 --gateway fd00::1 --address 10.0.0.2 --gateway 10.0.0.1 --netmask 8"},
		{"bridge=husk0,address=auto", "bridge: needs CAP_NET_ADMIN"},
		{"address=auto,host-name=x", "host-name: needs CAP_NET_ADMIN"},
		{"address=auto,route=10.0.0.0/8", "route: needs CAP_NET_ADMIN"},
		{"address=auto,forwarding", "forwarding: needs CAP_NET_ADMIN"},
		{"address=auto,allow=192.0.2.1:1", "allow: needs CAP_NET_ADMIN"},
		{"address=10.0.0.2/24", "address: 10.0.0.2/24 needs a gateway"},
		{"address=10.0.0.2/24,gateway=10.1.0.1", "gateway: 10.1.0.1 is not in the network of 10.0.0.2/24"},
		{"address=10.0.0.2/24,address=10.0.0.3/24,gateway=10.0.0.1", "address: 10.0.0.3/24 is a second one of its family"},
		{"address=fd00::2/80,gateway=fd00::1", "address: fd00::2/80 has not the prefix"},
	} {
		i, err := ParseInterface("e", test.words)
		if err != nil {
			t.Fatal(test.words, err)
		}
		list, err := i.PastaOptions()
		if got := strings.Join(list, " "); err == nil && got != test.want || err != nil && !strings.HasPrefix(fmt.Sprint(err), test.want) {
			t.Errorf("%s:\n%s %v\n%s", test.words, got, err, test.want)
		}
	}
}
