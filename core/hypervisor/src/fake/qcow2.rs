//! The bytes of a qcow2 file that a fake host sends: an empty disk of the right size, with what it is said to hold behind its tables.

/// Bytes of a cluster: 2 to the power of these bits.
const CLUSTER_BITS: u32 = 14;
const CLUSTER: usize = 1 << CLUSTER_BITS;

/// A file of version 2 of a disk of `size_bytes`. `content` lies in clusters that no guest sees.
pub(super) fn file(size_bytes: u64, content: &[u8]) -> Vec<u8> {
    let table = (CLUSTER / 8) as u64 * CLUSTER as u64;
    let entries = u32::try_from(size_bytes.div_ceil(table)).unwrap_or(u32::MAX);
    let tables = (entries as usize * 8).next_multiple_of(CLUSTER);
    // Header, refcount table, L1 table, content.
    let mut file = vec![0; 2 * CLUSTER + tables];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &2_u32.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &size_bytes.to_be_bytes());
    put(36, &entries.to_be_bytes());
    put(40, &(2 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    file.extend_from_slice(content);
    file.resize(file.len().next_multiple_of(CLUSTER), 0);
    file
}
