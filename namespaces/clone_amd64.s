//go:build !race && !msan && !asan

#include "textflag.h"

// func cloneShared(args *cloneArgs, size uintptr, h *half) (pid, errno uintptr)
//
// The child starts on the stack that args names, whose last 64 bytes are not
// part of it: room for the argument of runShared. It needs nothing of its
// caller's frame, which the parent leaves at once.
TEXT ·cloneShared(SB),NOSPLIT,$0-40
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	h+16(FP), R12
	MOVL	$435, AX	// clone3
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JCC	failed
	MOVQ	AX, pid+24(FP)
	MOVQ	$0, errno+32(FP)
	RET

failed:
	NEGQ	AX
	MOVQ	$0, pid+24(FP)
	MOVQ	AX, errno+32(FP)
	RET

child:
	XORL	BP, BP
	MOVQ	R12, 0(SP)
	CALL	·runShared(SB)
	INT	$3
