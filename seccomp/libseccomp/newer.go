package libseccomp

// newer are system calls that libseccomp releases in use (2.5.4 of Debian 12 and
// Ubuntu 22.04) cannot name. From Linux 5.1 on new calls have one number
// everywhere, up to the architecture's base. Sorted by number.
var newer = []struct {
	name string
	nr   uint32
}{
	{"process_madvise", 440},
	{"epoll_pwait2", 441},
	{"mount_setattr", 442},
	{"quotactl_fd", 443},
	{"landlock_create_ruleset", 444},
	{"landlock_add_rule", 445},
	{"landlock_restrict_self", 446},
	{"memfd_secret", 447},
	{"process_mrelease", 448},
	{"futex_waitv", 449},
	{"set_mempolicy_home_node", 450},
	{"cachestat", 451},
	{"fchmodat2", 452},
	{"map_shadow_stack", 453},
	{"futex_wake", 454},
	{"futex_wait", 455},
	{"futex_requeue", 456},
	{"statmount", 457},
	{"listmount", 458},
	{"lsm_get_self_attr", 459},
	{"lsm_set_self_attr", 460},
	{"lsm_list_modules", 461},
	{"mseal", 462},
	{"setxattrat", 463},
	{"getxattrat", 464},
	{"listxattrat", 465},
	{"removexattrat", 466},
	{"open_tree_attr", 467},
	{"file_getattr", 468},
	{"file_setattr", 469},
	{"listns", 470},
}

// newerCall finds a call's number before the architecture's base is added.
func newerCall(name string) (uint32, bool) {
	for _, c := range newer {
		if c.name == name {
			return c.nr, true
		}
	}
	return 0, false
}
