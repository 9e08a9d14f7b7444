// Package image turns an image file into the lower directories of an overlay. An image
// is an OCI layout directory, an archive of one, or what docker save writes.
//
//	Store.Open ──▶ known? ──▶ Image{Layers, Config}         one small file is read
//	                 │ no
//	                 └──▶ the unpacker, a program of its own, confined
//	                        inspect: index, manifest, config, digests
//	                        layer:   one directory each, verified
//
// What reads the image and writes its files is package unpack, in a program that is
// started only for an image that the store does not have: what it is made of would cost
// every start of husk. It runs in namespaces of its own, with the containers' id mapping,
// and its root directory is the layer that it writes. So nothing that an archive says can
// reach other files, the layers belong to the users of the containers, and an ordinary
// user's layers are made as root's are.
//
// # The store
//
// One directory for each id mapping; all below it belongs to who runs husk.
//
//	DIR/MAPPING/lock          locked (flock) by who unpacks
//	DIR/MAPPING/images/KEY    what is known of an image file: see record
//	DIR/MAPPING/layers/CHAIN  a layer upon those below it: fs has its files
//	DIR/MAPPING/new           layers on their way; of a holder of the lock that was killed
//
// A layer gets its name when it is complete, verified and on the disk, and its files
// never change then. It is known by its chain, the digest of it and of all below it,
// since directories that a layer only passes through look as they do below.
//
// It takes overlay with the option userxattr: opaque directories are marked by user.*
// attributes, which need no privilege.
package image
