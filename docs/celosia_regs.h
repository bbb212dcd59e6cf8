/* SPDX-License-Identifier: BSD-2-Clause */
/* Generated from hw/contract/regs.py by sw/docgen/pages.py; do not edit. */
#ifndef CELOSIA_REGS_H
#define CELOSIA_REGS_H

#define CELOSIA_IDENTITY_VALUE 0x4f4c4543u
#define CELOSIA_VERSION_VALUE 0x00010001u

/* 0x4F4C4543: the letters CELO */
#define CELOSIA_IDENTITY_OFFSET 0x00u

/* Version of the hardware interface, major.minor */
#define CELOSIA_VERSION_OFFSET 0x04u

/* Hash of the configuration; a program names the one it needs */
#define CELOSIA_CONFIG_HASH_OFFSET 0x08u

/* Sizes of the machine */
#define CELOSIA_CAPABILITY0_OFFSET 0x0cu
/*   R: Array rows */
#define CELOSIA_CAPABILITY0_ROWS_SHIFT 0
#define CELOSIA_CAPABILITY0_ROWS_MASK 0x000000ffu
/*   R: Array columns */
#define CELOSIA_CAPABILITY0_COLS_SHIFT 8
#define CELOSIA_CAPABILITY0_COLS_MASK 0x0000ff00u
/*   R: Bytes of a bus word */
#define CELOSIA_CAPABILITY0_BUS_BYTES_SHIFT 16
#define CELOSIA_CAPABILITY0_BUS_BYTES_MASK 0x00ff0000u
/*   R: Version of the instruction set */
#define CELOSIA_CAPABILITY0_ISA_VERSION_SHIFT 24
#define CELOSIA_CAPABILITY0_ISA_VERSION_MASK 0xff000000u

/* Sizes of the memories */
#define CELOSIA_CAPABILITY1_OFFSET 0x10u
/*   R: Activation SRAM in KiB */
#define CELOSIA_CAPABILITY1_ACT_KIB_SHIFT 0
#define CELOSIA_CAPABILITY1_ACT_KIB_MASK 0x0000ffffu
/*   R: Weight SRAM in KiB */
#define CELOSIA_CAPABILITY1_WGT_KIB_SHIFT 16
#define CELOSIA_CAPABILITY1_WGT_KIB_MASK 0xffff0000u

/* Sizes of the memories */
#define CELOSIA_CAPABILITY2_OFFSET 0x14u
/*   R: Vectors in an accumulator half */
#define CELOSIA_CAPABILITY2_ACC_DEPTH_SHIFT 0
#define CELOSIA_CAPABILITY2_ACC_DEPTH_MASK 0x0000ffffu
/*   R: Parameter SRAM in KiB */
#define CELOSIA_CAPABILITY2_PARAM_KIB_SHIFT 16
#define CELOSIA_CAPABILITY2_PARAM_KIB_MASK 0xffff0000u

/* Operations of the vector engine that there are */
#define CELOSIA_CAPABILITY3_OFFSET 0x18u
/*   R: It requantises what the array has summed up */
#define CELOSIA_CAPABILITY3_REQUANT_SHIFT 0
#define CELOSIA_CAPABILITY3_REQUANT_MASK 0x00000001u
/*   R: It adds two tensors */
#define CELOSIA_CAPABILITY3_ADD_SHIFT 1
#define CELOSIA_CAPABILITY3_ADD_MASK 0x00000002u
/*   R: It averages windows */
#define CELOSIA_CAPABILITY3_AVERAGE_SHIFT 2
#define CELOSIA_CAPABILITY3_AVERAGE_MASK 0x00000004u
/*   R: It finds the greatest value of windows */
#define CELOSIA_CAPABILITY3_MAX_SHIFT 3
#define CELOSIA_CAPABILITY3_MAX_MASK 0x00000008u
/*   R: It looks values up in a table */
#define CELOSIA_CAPABILITY3_TABLE_SHIFT 4
#define CELOSIA_CAPABILITY3_TABLE_MASK 0x00000010u
/*   R: It requantises and adds another tensor */
#define CELOSIA_CAPABILITY3_REQUANT_ADD_SHIFT 5
#define CELOSIA_CAPABILITY3_REQUANT_ADD_MASK 0x00000020u
/*   R: It computes softmax */
#define CELOSIA_CAPABILITY3_SOFTMAX_SHIFT 6
#define CELOSIA_CAPABILITY3_SOFTMAX_MASK 0x00000040u
/*   R: It multiplies two tensors */
#define CELOSIA_CAPABILITY3_MUL_SHIFT 7
#define CELOSIA_CAPABILITY3_MUL_MASK 0x00000080u
/*   R: It squares the difference of two tensors */
#define CELOSIA_CAPABILITY3_SQUARED_DIFFERENCE_SHIFT 8
#define CELOSIA_CAPABILITY3_SQUARED_DIFFERENCE_MASK 0x00000100u
/*   R: It finds the least value where MAX finds the greatest (`least`) */
#define CELOSIA_CAPABILITY3_MIN_SHIFT 9
#define CELOSIA_CAPABILITY3_MIN_MASK 0x00000200u
/*   R: It finds the greater of two tensors' values (`pair` of MAX) */
#define CELOSIA_CAPABILITY3_PAIR_SHIFT 10
#define CELOSIA_CAPABILITY3_PAIR_MASK 0x00000400u
/*   R: It takes one channel of a second tensor for all (`b_oc`) */
#define CELOSIA_CAPABILITY3_SPREAD_SHIFT 11
#define CELOSIA_CAPABILITY3_SPREAD_MASK 0x00000800u

/* Control */
#define CELOSIA_CONTROL_OFFSET 0x20u
/*   W: Return everything but these registers to its start */
#define CELOSIA_CONTROL_SOFT_RESET_SHIFT 0
#define CELOSIA_CONTROL_SOFT_RESET_MASK 0x00000001u
/*   RW: Stop the clock enables of everything but these registers */
#define CELOSIA_CONTROL_SLEEP_SHIFT 1
#define CELOSIA_CONTROL_SLEEP_MASK 0x00000002u

/* Status */
#define CELOSIA_STATUS_OFFSET 0x24u
/*   R: A program is running */
#define CELOSIA_STATUS_BUSY_SHIFT 0
#define CELOSIA_STATUS_BUSY_MASK 0x00000001u
/*   R: The last program ran to its End */
#define CELOSIA_STATUS_DONE_SHIFT 1
#define CELOSIA_STATUS_DONE_MASK 0x00000002u
/*   R: The last program was stopped by an error */
#define CELOSIA_STATUS_ERROR_SHIFT 2
#define CELOSIA_STATUS_ERROR_MASK 0x00000004u
/*   R: Load engine has work */
#define CELOSIA_STATUS_LOAD_ACTIVE_SHIFT 4
#define CELOSIA_STATUS_LOAD_ACTIVE_MASK 0x00000010u
/*   R: Store engine has work */
#define CELOSIA_STATUS_STORE_ACTIVE_SHIFT 5
#define CELOSIA_STATUS_STORE_ACTIVE_MASK 0x00000020u
/*   R: Array has work */
#define CELOSIA_STATUS_ARRAY_ACTIVE_SHIFT 6
#define CELOSIA_STATUS_ARRAY_ACTIVE_MASK 0x00000040u
/*   R: Vector engine has work */
#define CELOSIA_STATUS_VECTOR_ACTIVE_SHIFT 7
#define CELOSIA_STATUS_VECTOR_ACTIVE_MASK 0x00000080u

/* Doorbell */
#define CELOSIA_DOORBELL_OFFSET 0x28u
/*   W: Start fetching at offset 0 of region CODE; ignored while busy */
#define CELOSIA_DOORBELL_START_SHIFT 0
#define CELOSIA_DOORBELL_START_MASK 0x00000001u

/* Interrupt enable */
#define CELOSIA_IRQ_ENABLE_OFFSET 0x2cu
/*   RW: Interrupt when a program ends */
#define CELOSIA_IRQ_ENABLE_DONE_SHIFT 0
#define CELOSIA_IRQ_ENABLE_DONE_MASK 0x00000001u
/*   RW: Interrupt when an error stops a program */
#define CELOSIA_IRQ_ENABLE_ERROR_SHIFT 1
#define CELOSIA_IRQ_ENABLE_ERROR_MASK 0x00000002u

/* Interrupt pending */
#define CELOSIA_IRQ_PENDING_OFFSET 0x30u
/*   RW1C: A program has ended */
#define CELOSIA_IRQ_PENDING_DONE_SHIFT 0
#define CELOSIA_IRQ_PENDING_DONE_MASK 0x00000001u
/*   RW1C: An error has stopped a program */
#define CELOSIA_IRQ_PENDING_ERROR_SHIFT 1
#define CELOSIA_IRQ_PENDING_ERROR_MASK 0x00000002u

/* First error since the doorbell */
#define CELOSIA_ERROR_CAUSE_OFFSET 0x34u
/*   R: ErrorCause */
#define CELOSIA_ERROR_CAUSE_CAUSE_SHIFT 0
#define CELOSIA_ERROR_CAUSE_CAUSE_MASK 0x000000ffu
/*   R: Engine (0 load, 1 store, 2 array, 3 vector, 4 fetch) */
#define CELOSIA_ERROR_CAUSE_UNIT_SHIFT 8
#define CELOSIA_ERROR_CAUSE_UNIT_MASK 0x0000ff00u
/*   R: Tag of the command in error */
#define CELOSIA_ERROR_CAUSE_TAG_SHIFT 16
#define CELOSIA_ERROR_CAUSE_TAG_MASK 0xffff0000u

/* Address in error: system memory or on-chip byte */
#define CELOSIA_ERROR_ADDRESS_OFFSET 0x38u

/* Cycles that a program may take; 0: no limit */
#define CELOSIA_WATCHDOG_OFFSET 0x3cu

/* Cycles that one bus answer may take; 0: no limit */
#define CELOSIA_BUS_TIMEOUT_OFFSET 0x40u

/* Has no effect; for testing the link */
#define CELOSIA_SCRATCH_OFFSET 0x44u

/* Byte address, a multiple of the bus word (else the region has no bytes), of region CODE */
#define CELOSIA_REGION0_BASE_OFFSET 0x50u

/* Bytes of region CODE */
#define CELOSIA_REGION0_SIZE_OFFSET 0x54u

/* Byte address, a multiple of the bus word (else the region has no bytes), of region CONST */
#define CELOSIA_REGION1_BASE_OFFSET 0x58u

/* Bytes of region CONST */
#define CELOSIA_REGION1_SIZE_OFFSET 0x5cu

/* Byte address, a multiple of the bus word (else the region has no bytes), of region IO */
#define CELOSIA_REGION2_BASE_OFFSET 0x60u

/* Bytes of region IO */
#define CELOSIA_REGION2_SIZE_OFFSET 0x64u

/* Byte address, a multiple of the bus word (else the region has no bytes), of region SCRATCH */
#define CELOSIA_REGION3_BASE_OFFSET 0x68u

/* Bytes of region SCRATCH */
#define CELOSIA_REGION3_SIZE_OFFSET 0x6cu

/* cycles from the doorbell to the end or the error */
#define CELOSIA_COUNT_TOTAL_OFFSET 0x80u

/* cycles in which the array took a window */
#define CELOSIA_COUNT_ARRAY_BUSY_OFFSET 0x84u

/* array had a command that waited for a token */
#define CELOSIA_COUNT_ARRAY_WAIT_TOKEN_OFFSET 0x88u

/* array waited for weights to be shifted in */
#define CELOSIA_COUNT_ARRAY_WAIT_WEIGHTS_OFFSET 0x8cu

/* array waited for a free accumulator half */
#define CELOSIA_COUNT_ARRAY_WAIT_ACC_OFFSET 0x90u

/* array took up a command or drained */
#define CELOSIA_COUNT_ARRAY_START_OFFSET 0x94u

/* cycles in which the vector engine issued a vector */
#define CELOSIA_COUNT_VECTOR_BUSY_OFFSET 0x98u

/* vector engine had a command that waited for a token */
#define CELOSIA_COUNT_VECTOR_WAIT_TOKEN_OFFSET 0x9cu

/* vector engine waited for a full accumulator half */
#define CELOSIA_COUNT_VECTOR_WAIT_ACC_OFFSET 0xa0u

/* vector engine waited for a port of the activation SRAM */
#define CELOSIA_COUNT_VECTOR_WAIT_ACT_OFFSET 0xa4u

/* load engine had a command in progress */
#define CELOSIA_COUNT_LOAD_BUSY_OFFSET 0xa8u

/* load engine had a command that waited for a token */
#define CELOSIA_COUNT_LOAD_WAIT_TOKEN_OFFSET 0xacu

/* store engine had a command in progress */
#define CELOSIA_COUNT_STORE_BUSY_OFFSET 0xb0u

/* bus words read */
#define CELOSIA_COUNT_BUS_READ_OFFSET 0xb4u

/* bus words written */
#define CELOSIA_COUNT_BUS_WRITE_OFFSET 0xb8u

/* a request was on the bus and stalled, or no answer came to one in flight */
#define CELOSIA_COUNT_BUS_WAIT_OFFSET 0xbcu

/* no engine busy between doorbell and end */
#define CELOSIA_COUNT_IDLE_OFFSET 0xc0u

/* Values of ERROR_CAUSE_CAUSE. */
#define CELOSIA_CAUSE_NONE 0u
#define CELOSIA_CAUSE_ILLEGAL_OPCODE 1u
#define CELOSIA_CAUSE_ILLEGAL_FIELD 2u
#define CELOSIA_CAUSE_ACT_RANGE 3u
#define CELOSIA_CAUSE_WGT_RANGE 4u
#define CELOSIA_CAUSE_PARAM_RANGE 5u
#define CELOSIA_CAUSE_ACC_OVERFLOW 6u
#define CELOSIA_CAUSE_BANK_CONFLICT 7u
#define CELOSIA_CAUSE_MEM_WINDOW 8u
#define CELOSIA_CAUSE_BUS_ERROR 9u
#define CELOSIA_CAUSE_BUS_TIMEOUT 10u
#define CELOSIA_CAUSE_WATCHDOG 11u
#define CELOSIA_CAUSE_FETCH_WINDOW 12u
#define CELOSIA_CAUSE_TOKEN_OVERFLOW 13u

#endif /* CELOSIA_REGS_H */
