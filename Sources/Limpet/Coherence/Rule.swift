/// The rules of the protocol (see the article Coherence), by number. A test may break one in a node, to see that it is noticed.
package enum Rule: Int, CaseIterable, Sendable {
    case r1 = 1
    case r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15, r16, r17, r18, r19, r20, r21, r22, r23, r24, r25
}
