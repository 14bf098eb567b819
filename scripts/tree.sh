# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# How the repository and build/src/stackmux-VERSION correspond. Sourced after
# lib.sh by the scripts that copy in either direction.

# The kernel's own top-level directories: what the repository has below them is
# a new file of the kernel, at the path where the kernel has it.
kernel_dirs=(Documentation arch block certs crypto drivers fs include init
	     io_uring ipc kernel lib mm net rust samples security sound tools
	     usr virt)

tree_vars()
{
	stock=$build/src/stock-$1
	tree=$build/src/stackmux-$1
	# manifest: sha256 and path of every patched or new file as prepare left
	# it; patches: which patches were applied then. Its time stamp tells
	# later edits.
	state=$build/src/.stackmux-$1
}

# The patches in the order in which they apply
series()
{
	[ ! -e "$patches/series" ] ||
		sed -e 's/[[:space:]]*#.*//' -e 's/[[:space:]].*//' -e '/^$/d' "$patches/series"
}

patches_key()
{
	local p

	{
		series
		series | while read -r p; do cat "$patches/$p"; done
	} | sha256sum
}

# Every file that some patch touches
patched_files()
{
	local p

	series | while read -r p; do
		[ -r "$patches/$p" ] ||
			die "patches/$base/series names $p, which does not exist"
		sed -n -E 's,^(---|\+\+\+) [ab]/([^\t]*).*,\2,p' "$patches/$p"
	done | sort -u
}

# Every file of the repository that is a new kernel file: whatever git tracks
# or would track.
overlay_files()
{
	local dirs=() d

	for d in "${kernel_dirs[@]}"; do
		[ ! -d "$top/$d" ] || dirs+=("$d")
	done
	[ ${#dirs[@]} -gt 0 ] || return 0
	(
		cd "$top"
		if in_repo rev-parse --git-dir >/dev/null 2>&1; then
			in_repo ls-files -co --exclude-standard -- "${dirs[@]}"
		else
			find "${dirs[@]}" -type f ! -name '*~' ! -name '.*.swp'
		fi
	) | while read -r d; do
		# Deleted, but git was not told yet
		[ ! -f "$top/$d" ] || echo "$d"
	done | sort -u
}

managed_files()
{
	sed 's/^[^ ]* [ *]//' "$state/manifest" | sort
}

# From the paths on stdin, which exist or not
write_manifest()
{
	(
		cd "$tree"
		while read -r file; do
			[ ! -e "$file" ] || echo "$file"
		done | xargs -r -d '\n' sha256sum
	) > "$state/manifest.tmp"
	mv "$state/manifest.tmp" "$state/manifest"
	touch "$state/stamp"
}

# Files of the tree that are not as prepare left them: managed ones that differ
# from the manifest or are gone, others of the stock source that differ from it.
# Files that neither the stock source nor the repository knows are no edits.
edited_files()
{
	local file

	{
		(cd "$tree" && sha256sum -c --quiet "$state/manifest" 2>/dev/null || :) |
			sed -n 's/: FAILED.*$//p'
		[ ! -e "$state/stamp" ] ||
		(cd "$tree" && find . -path ./.pc -prune -o -type f -newer "$state/stamp" -printf '%P\n') |
			sort | comm -23 - <(managed_files) |
			while read -r file; do
				[ -e "$stock/$file" ] || continue
				cmp -s "$stock/$file" "$tree/$file" || echo "$file"
			done
	} | sort -u
}
