/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nvm.h - what nvm.c and nvm_steps.c share.
 */
#ifndef DEVICE_NVM_H
#define DEVICE_NVM_H

#include "device/ctrl.h"

/* cdw12 */
#define NVM_PRINFO (0xfu << 26)
#define NVM_DTYPE  (0xfu << 20)

uint16_t nvm_range(const struct ctrl_namespace *ns, uint64_t slba, uint64_t blocks);
uint64_t nvm_slba(const struct ctrl_cmd *cmd);
uint32_t nvm_blocks(const struct ctrl_cmd *cmd);
/* Finds cmd->ns. */
uint16_t nvm_namespace(struct ctrl_cmd *cmd, bool writes);
/* The range's data move @dir. */
uint16_t nvm_prepare(struct ctrl_cmd *cmd, bool writes, enum ctrl_direction dir);
/* It must survive a power cut once it is acknowledged. */
bool nvm_durable(const struct ctrl_cmd *cmd);
void nvm_count(struct ctrl_cmd *cmd, bool write, uint64_t bytes);
void nvm_io(struct ctrl_cmd *cmd, const struct ctrl_io *io,
	    void (*done)(struct ctrl_io *io, int error));

uint16_t nvm_compare_prepare(struct ctrl_cmd *cmd);
void nvm_compare_run(struct ctrl_cmd *cmd);
uint16_t nvm_verify_prepare(struct ctrl_cmd *cmd);
void nvm_verify_run(struct ctrl_cmd *cmd);
uint16_t nvm_copy_prepare(struct ctrl_cmd *cmd);
void nvm_copy_run(struct ctrl_cmd *cmd);

#endif /* DEVICE_NVM_H */
