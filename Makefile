# SPDX-License-Identifier: GPL-2.0

# Which kernel: stock, release or debug
KERNEL ?= release

vm := scripts/vm --kernel $(KERNEL)

.DEFAULT_GOAL := help
.PHONY: help
help:
	@echo 'make demo        sleeping threads with and without their stacks, side by side'
	@echo '                 (THREADS=N: so many)'
	@echo 'make check       all tests; ends with "N passed, N failed, N skipped"'
	@echo '                 (FULL=1: more combinations of CPUs and modes)'
	@echo 'make kselftests  selftests of the kernel, stock against stackmux=always'
	@echo 'make survey      what sleeping threads of real servers do, and how many park'
	@echo '                 (OPTIN=1: started by "stackmux run", in the mode "optin")'
	@echo 'make observers   what ps, gdb, strace, perf and others say of parked threads'
	@echo 'make kernel      build a kernel (KERNEL=stock, release or debug; default release)'
	@echo 'make shell       a shell in a guest that runs it'
	@echo 'make menuconfig  try options of the kernel; to keep them, edit configs/'
	@echo 'make prepare     only that: source and patches; scripts/quilt edits patches'
	@echo 'make bench       costs and savings against the stock kernel, by instructions,'
	@echo '                 memory and time (GROUPS="calls herd": only these; SAVE=1: keep'
	@echo '                 the results to compare with)'
	@echo 'make bench-compare  the same, and fail where it is worse than what was kept'
	@echo 'make zero-cost   show that the patches change no code with CONFIG_STACKMUX=n'
	@echo 'make clean       remove the built kernels and programs'
	@echo 'make distclean   remove build/, with the unpacked sources'
	@echo
	@echo 'All of them first install the Debian packages that are missing, unpack the'
	@echo 'kernel source and apply the patches. JOBS=N limits the number of compilers.'
	@echo 'scripts/vm --help: how to run any command in a guest.'

# Everything up to patched source; fast when there is nothing to do
.PHONY: prepare
prepare:
	@scripts/setup
	@scripts/prepare

.PHONY: kernel
kernel: prepare
	@scripts/build-kernel $(KERNEL)

.PHONY: shell
shell: kernel
	@$(vm)

.PHONY: menuconfig
menuconfig: prepare
	@scripts/build-kernel --menuconfig $(KERNEL)

.PHONY: demo
demo: prepare
	@scripts/build-kernel release
	@scripts/demo

# What parking costs and saves
bench_kernels := stock release bench-stock bench-release

.PHONY: bench
bench: prepare
	@scripts/build-kernel $(bench_kernels)
	@scripts/bench/run $(if $(SAVE),--save) $(GROUPS)

# The results so far: scripts/bench/compare alone
.PHONY: bench-compare
bench-compare: bench
	@scripts/bench/compare

.PHONY: check
check:
	@scripts/check

# Those of the kernel itself, in two columns
.PHONY: kselftests
kselftests: prepare
	@scripts/build-kernel stock release
	@scripts/kselftests

# Installs servers, and runs them in a guest
.PHONY: survey
survey: prepare
	@scripts/build-kernel release
	@scripts/survey $(if $(OPTIN),--opt-in)

# Installs tools, and runs them in two guests
.PHONY: observers
observers: prepare
	@scripts/build-kernel stock release
	@scripts/observers

.PHONY: zero-cost
zero-cost: prepare
	@scripts/zero-cost

.PHONY: clean
clean:
	rm -rf build/out build/log build/vm build/selftests build/zero-cost build/accel build/bench

# Edits of the patched source that are in no patch would be lost
.PHONY: distclean
distclean:
	@scripts/prepare --check
	rm -rf build
