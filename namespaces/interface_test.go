package namespaces

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParseInterface(t *testing.T) {
	got, err := ParseInterface("eth0", "bridge=husk0,address=10.88.0.2/24,address=fd00::2/64,gateway=10.88.0.1,gateway=fd00::1,route=10.9.0.0/16@10.88.0.7,route=fd09::/16,mtu=1400,mac=02:00:00:00:00:0a,host-name=web0,dns=10.0.0.53,dns=127.0.0.1,dns=fd00:0::53,hosts,hostname")
	if err != nil {
		t.Fatal(err)
	}
	address := func(s string) Address {
		a, _, err := parseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	want := &Interface{
		Name: "eth0", Host: "web0", Bridge: "husk0", MAC: []byte{2, 0, 0, 0, 0, 10}, MTU: 1400,
		Addresses: []Address{address("10.88.0.2/24"), address("fd00::2/64")},
		Gateways:  []Address{address("10.88.0.1"), address("fd00::1")},
		Routes:    []Route{{address("10.9.0.0/16"), address("10.88.0.7")}, {To: address("fd09::/16")}},
		DNS:       []string{"10.0.0.53", "127.0.0.1", "fd00::53"}, Hosts: true, Hostname: true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseInterfaceMistakes(t *testing.T) {
	const notName, notPrefix = "is not the name of a network device", "is not an address with the length of its network's prefix, as in 10.88.0.2/24"
	for _, test := range []struct{ name, words, want string }{
		{"", "bridge=br0", `"" ` + notName},
		{"eth%d", "bridge=br0", `"eth%d" ` + notName},
		{"sixteen-letters.", "bridge=br0", `"sixteen-letters." ` + notName},
		{"e", "", `"" is none of the words bridge, address, gateway, route, mtu, mac, host-name`},
		{"e", "bridge=br0,", `"" is none of the words`},
		{"e", "bridge", `bridge: "" ` + notName},
		{"e", "bridge=a/b", `bridge: "a/b" ` + notName},
		{"e", "bridge=br0,bridge=br1", `bridge is given twice`},
		{"e", "bridge=br0,speed=fast", `"speed" is none of the words`},
		{"e", "mtu=1500", `leads nowhere: give it an address, or a bridge`},
		{"e", "bridge=br0,address=auto,masquerade,publish=1:2/tcp,publish=1:2/udp,publish=65535:2/tcp,forwarding", ``},
		{"e", "bridge=br0,masquerade", `masquerade, publish and allow are for addresses, and none is given`},
		{"e", "bridge=br0,publish=1:2/udp", `masquerade, publish and allow are for addresses`},
		{"e", "masquerade=yes", `masquerade: "yes" is a value, and it takes none`},
		{"e", "publish", `publish: "" is not a port of the host and one of the container, as in 8080:80/tcp or 53:53/udp`},
		{"e", "bridge=br0,address=auto,publish=127.0.0.1:1:2/tcp,publish=192.0.2.1:1:2/tcp,publish=[2001:db8::1]:1:2/tcp,publish=[::1]:1:2/udp", ``},
		{"e", "publish=0.0.0.0:1:2/tcp", `publish: "0.0.0.0:1:2/tcp" has something in front that is not one address of the host, as in 127.0.0.1:8080:80/tcp`},
		{"e", "publish=::1:1:2/tcp", `publish: "::1:1:2/tcp" has something in front`},
		{"e", "publish=[127.0.0.1]:1:2/tcp", `publish: "[127.0.0.1]:1:2/tcp" has something in front`},
		{"e", "publish=127.0.0.1:1:2/tcp,publish=1:2/tcp", `publish: "1:2/tcp" is a second use of that port of the host`},
		{"e", "publish=80/tcp", `publish: "80/tcp" is not a port`},
		{"e", "publish=1:2", `publish: "1:2" is not a port`},
		{"e", "publish=1:2/sctp", `publish: "1:2/sctp" is not a port`},
		{"e", "publish=0:2/tcp", `publish: "0:2/tcp" is not a port`},
		{"e", "publish=1:65536/tcp", `publish: "1:65536/tcp" is not a port`},
		{"e", "publish=+1:2/tcp", `publish: "+1:2/tcp" is not a port`},
		{"e", "publish=01:2/tcp", `publish: "01:2/tcp" is not a port`},
		{"e", "publish=1:2/tcp,publish=1:3/tcp", `publish: "1:3/tcp" is a second use of that port of the host`},
		{"e", "address=10.0.0.1", `address: "10.0.0.1" ` + notPrefix},
		{"e", "address=10.0.0.256/8", `address: "10.0.0.256/8" ` + notPrefix},
		{"e", "address=10.0.0.0/8", `address: "10.0.0.0/8" is the address of the network itself`},
		{"e", "address=10.0.0.1/0", `address: "10.0.0.1/0" is not the address of one interface`},
		{"e", "address=224.0.0.1/8", `address: "224.0.0.1/8" is not the address of one interface`},
		{"e", "address=::1/128", `address: "::1/128" is not the address of one interface`},
		{"e", "address=10.0.0.1/8,address=10.0.0.1/16", `address: "10.0.0.1/16" is given twice`},
		{"e", "address=10.0.0.0/31", ``},
		{"e", "address=10.0.0.2/24,gateway=10.0.0.1/24", `gateway: "10.0.0.1/24" is not an IP address`},
		{"e", "address=10.0.0.2/24,gateway=10.0.0.1,gateway=10.0.0.3", `gateway: "10.0.0.3" is a second gateway of its family`},
		{"e", "address=10.0.0.2/24,gateway=10.0.0.2", `gateway: 10.0.0.2 is the interface's own address`},
		{"e", "address=10.0.0.2/24,gateway=fd00::1", `gateway: fd00::1 needs an address of its family`},
		{"e", "address=10.0.0.2/24,gateway=10.1.0.1", ``}, // the other end of a pair can be anything
		{"e", "bridge=husk0,address=10.0.0.2/24,gateway=10.1.0.1", `gateway: 10.1.0.1 is in the network of none of the addresses`},
		{"e", "address=10.0.0.2/24,route=10.0.0.1", `route: "10.0.0.1" is not a network, or one with a gateway, as in 10.9.0.0/16@10.88.0.7`},
		{"e", "address=10.0.0.2/24,route=10.1.0.1/16", `route: "10.1.0.1/16" has bits set behind its prefix: the network is 10.1.0.0/16`},
		{"e", "address=10.0.0.2/24,route=10.1.0.0/16@fd00::1", `route: "10.1.0.0/16@fd00::1" is not a network`},
		{"e", "address=10.0.0.2/24,route=10.1.0.0/16@10.2.0.1", `route: 10.2.0.1 is in the network of none of the addresses`},
		{"e", "address=10.0.0.2/24,route=fd00::/64", `route: fd00::/64 needs an address of its family`},
		{"e", "address=auto", ``}, // pasta takes the host's
		{"e", "bridge=br0,address=auto,address=10.0.0.1/24", `address: auto is instead of all others`},
		{"e", "bridge=br0,address=auto,gateway=10.0.0.1,route=10.1.0.0/16", ``},
		{"e", "bridge=br0,mtu=67", `mtu: "67" is not a number from 68 to 65535`},
		{"e", "bridge=br0,mtu=65536", `mtu: "65536" is not a number from 68 to 65535`},
		{"e", "address=fd00::1/64,mtu=1279", `mtu: 1279 is too small for IPv6, which needs 1280`},
		{"e", "bridge=br0,mac=02:00:00:00:00", `mac: "02:00:00:00:00" is not the address of one Ethernet device, as in 02:00:00:00:00:01`},
		{"e", "bridge=br0,mac=03:00:00:00:00:01", `mac: "03:00:00:00:00:01" is not the address of one`},
		{"e", "bridge=br0,mac=2:00:00:00:00:01", `mac: "2:00:00:00:00:01" is not the address of one`},
		{"e", "bridge=br0,mac=00:00:00:00:00:00", `mac: "00:00:00:00:00:00" is not the address of one`},
		{"e", "bridge=br0,dns=10.0.0.1/8", `dns: "10.0.0.1/8" is neither the IP address of a server nor host nor none`},
		{"e", "bridge=br0,dns", `dns: "" is neither`},
		{"e", "bridge=br0,dns=0.0.0.0", `dns: "0.0.0.0" is neither`},
		{"e", "bridge=br0,dns=ff02::1", `dns: "ff02::1" is neither`},
		{"e", "bridge=br0,dns=::1,dns=0::1", `dns: "0::1" is given twice`},
		{"e", "bridge=br0,dns=10.0.0.1,dns=10.0.0.2,dns=10.0.0.3,dns=10.0.0.4", `dns: "10.0.0.4" is one too many: resolvers heed 3 servers`},
		{"e", "bridge=br0,dns=10.0.0.1,dns=none", `dns: host and none are instead of all others`},
		{"e", "bridge=br0,allow=10.0.0.1:1", `masquerade, publish and allow are for addresses, and none is given`},
		{"e", "address=10.0.0.2/24,allow=10.0.0.1:1,publish=1:2/tcp", `publish: with allow nobody else gets an answer`},
		{"e", "bridge=br0,hosts,hosts", `hosts is given twice`},
		{"e", "bridge=br0,hosts=", `hosts: "" is a value, and it takes none`},
		{"e", "bridge=br0,host-name=a b", `host-name: "a b" ` + notName},
	} {
		_, err := ParseInterface(test.name, test.words)
		if got := fmt.Sprint(err); test.want == "" && err != nil || test.want != "" && !strings.HasPrefix(got, test.want) {
			t.Errorf("%s:%s: got %s, want %s", test.name, test.words, got, test.want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	const notTarget = "is not HOST:PORT, as in db.example:5432, 192.0.2.7:53/udp, [2001:db8::1]:443 or 10.0.0.0/8:443"
	const here, network = "is not of another machine, whoever says so", "has bits set behind its prefix: the network is "
	for _, test := range []struct{ text, want, mistake string }{
		{text: "db:5432", want: "db:5432/tcp"},
		{text: "a_b-c.example.:53/udp", want: "a_b-c.example.:53/udp"},
		{text: "10.0.0.1:65535/tcp", want: "10.0.0.1:65535/tcp"},
		{text: "169.254.169.254:80", want: "169.254.169.254:80/tcp"},
		{text: "10.0.0.0/8:443", want: "10.0.0.0/8:443/tcp"},
		{text: "10.0.0.1/32:443", want: "10.0.0.1:443/tcp"},
		{text: "0.0.0.0/0:443", want: "0.0.0.0/0:443/tcp"},
		{text: "[::/0]:443/udp", want: "[::/0]:443/udp"},
		{text: "[2001:db8:0::1]:443", want: "[2001:db8::1]:443/tcp"},
		{text: "[fd00::/8]:443", want: "[fd00::/8]:443/tcp"},
		{text: "", mistake: notTarget},
		{text: "db", mistake: notTarget},
		{text: ":1", mistake: notTarget},
		{text: "db:", mistake: notTarget},
		{text: "db:0", mistake: notTarget},
		{text: "db:65536", mistake: notTarget},
		{text: "db:https", mistake: notTarget},
		{text: "db:01", mistake: notTarget},
		{text: "db:1/", mistake: notTarget},
		{text: "db:1/icmp", mistake: notTarget},
		{text: "db:1-2", mistake: notTarget},
		{text: "*:1", mistake: notTarget},
		{text: "*.example:1", mistake: notTarget},
		{text: "a b:1", mistake: notTarget},
		{text: "a\nb:1", mistake: notTarget},
		{text: "-a:1", mistake: notTarget},
		{text: "a..b:1", mistake: notTarget},
		{text: "[db]:1", mistake: notTarget},
		{text: "[10.0.0.1]:1", mistake: notTarget},
		{text: "[::1:1", mistake: notTarget},
		{text: "2001:db8::1:443", mistake: notTarget},
		{text: "10.0.0.256:1", mistake: notTarget},
		{text: "10.0.1:1", mistake: notTarget},
		{text: "db/8:1", mistake: notTarget},
		{text: "10.0.0.0/33:1", mistake: notTarget},
		{text: strings.Repeat("a", 64) + ":1", mistake: notTarget},
		{text: "localhost:1", mistake: here},
		{text: "127.0.0.1:1", mistake: here},
		{text: "0.0.0.0:1", mistake: here},
		{text: "[::1]:1", mistake: here},
		{text: "[fe80::1]:1", mistake: here},
		{text: "224.0.0.1:1", mistake: here},
		{text: "[ff02::1]:1", mistake: here},
		{text: "10.0.0.1/8:1", mistake: network + "10.0.0.0/8"},
		{text: "0.0.0.1/0:1", mistake: network + "0.0.0.0/0"},
	} {
		got, err := ParseTarget(test.text)
		if test.mistake != "" && (err == nil || !strings.HasPrefix(err.Error(), test.mistake)) {
			t.Errorf("%q: %v, want %s", test.text, err, test.mistake)
		} else if test.mistake == "" && (err != nil || got.String() != test.want) {
			t.Errorf("%q: %v, %v, want %s", test.text, got, err, test.want)
		}
	}
}
