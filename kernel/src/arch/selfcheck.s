.section .rodata.selfcheck, "a"
.balign 8
.global selfcheck_start
selfcheck_start:
    mov ebx, 0xb1
    mov edx, 0xd1
    mov esi, 0x51
    mov edi, 0xd2
    mov ebp, 0xb2
    mov r8d, 8
    mov r9d, 9
    mov r10d, 10
    mov r12d, 12
    mov r13d, 13
    mov r14d, 14
    mov r15d, 15
    mov eax, 1
    syscall
    cmp rax, 0x77
    jne 99f
    cmp rbx, 0xb1
    jne 99f
    cmp rdx, 0xd1
    jne 99f
    cmp rsi, 0x51
    jne 99f
    cmp rdi, 0xd2
    jne 99f
    cmp rbp, 0xb2
    jne 99f
    cmp r8, 8
    jne 99f
    cmp r9, 9
    jne 99f
    cmp r10, 10
    jne 99f
    cmp r12, 12
    jne 99f
    cmp r15, 15
    jne 99f
    mov rax, 0x502000
    cmp rsp, rax
    jne 99f
    xor edi, edi
    mov eax, 2
    syscall

    /* by exception: rcx, r11 and the flags stay too */
    mov ecx, 0xc1
    mov r11d, 0x111
    mov eax, 0xa1
    mov r12d, 6
    mov r13d, 2
    xor r14d, r14d
    std
    stc
    ud2
    jnc 99f
    pushfq
    cld
    pop rdi
    test edi, 0x400
    jz 99f
    cmp rax, 0xa1
    jne 99f
    cmp rcx, 0xc1
    jne 99f
    cmp r11, 0x111
    jne 99f
    mov edi, 1
    mov eax, 2
    syscall

    /* faults: vector in r12, length in r13, address in r14 */
    mov r12d, 14
    mov r13d, 3
    mov r14, 0xdead000
    mov rax, [r14]
    mov r14, 0xffffffff80000000
    mov rax, [r14]
    mov r14, 0xffffffffc0000000
    mov rax, [r14]
    mov r14, 0xffffffffc0200000
    mov rax, [r14]
    mov r14, 0xffff800000100000
    mov rax, [r14]
    mov r14, 0x400000
    mov [r14], rax
    mov r12d, 13
    mov r13d, 1
    xor r14d, r14d
    hlt
    cli
    in al, dx
    mov r13d, 2
    int 0x50
    int 0x7f
    mov r12d, 3
    mov r13d, 0
    int3
    /* single step, which comes on a stack of its own */
    mov r12d, 1
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    nop
    mov r12d, 0
    mov r13d, 2
    xor ecx, ecx
    div ecx
    mov edi, 2
    mov eax, 2
    syscall

    /* extended state, bases, preemption: the second thread counts at 0x500008 */
    mov eax, 0xaaaa
    movq xmm7, rax
    mov ebx, 6
    mov rdx, 0x500008
1:  mov rcx, [rdx]
2:  movq rsi, xmm7
    cmp rsi, rax
    jne 99f
    cmp qword ptr fs:[0], 0xa
    jne 99f
    cmp qword ptr gs:[0], 0x1a
    jne 99f
    cmp [rdx], rcx
    je 2b
    dec ebx
    jnz 1b
    mov edi, 3
    mov eax, 2
    syscall
    mov eax, 4
    syscall
99: mov eax, 3
    syscall
    ud2

.balign 8
.global selfcheck_second
selfcheck_second:
    mov eax, 0xbbbb
    movq xmm7, rax
    mov rdx, 0x500008
1:  lock inc qword ptr [rdx]
    movq rsi, xmm7
    cmp rsi, rax
    jne 99f
    cmp qword ptr fs:[0], 0xb
    jne 99f
    cmp qword ptr gs:[0], 0x1b
    jne 99f
    test dword ptr [rdx], 0xfff
    jnz 1b
    /* loading selectors clears the bases: whoever runs next must not see that */
2:  mov ecx, 0x1b
    mov ds, ecx
    mov fs, ecx
    mov gs, ecx
    xor ecx, ecx
    mov fs, ecx
    mov gs, ecx
    lock inc qword ptr [rdx]
    jmp 2b
99: mov eax, 3
    mov edi, 99
    syscall
    ud2
.global selfcheck_end
selfcheck_end:
.section .text
