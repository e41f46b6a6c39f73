//! What is left of a repeated string instruction: the processor keeps the count and the addresses in registers, and
//! between two elements they are exact. Source: Intel's manual, volume 2, "REP/REPE/REPZ/REPNE/REPNZ".

use fencepost_record::CopyInfo;

use super::opening::{Code, Prefixes, opening};
use super::{Map, RDI, RSI, State};

const RCX: u8 = 1;

/// The rest of a `rep movs` or `rep stos`, which runs `downwards` if the direction flag is set; `None` for any other
/// instruction, and where the rest wraps around.
pub(in super::super) fn repeated(bytes: &[u8], state: &State, downwards: bool) -> Option<CopyInfo> {
    let mut prefixes = Prefixes::none();
    let (map, opcode) = opening(&mut Code { bytes, at: 0 }, &mut prefixes)?;
    // With either prefix the count decides for these (a different meaning they have for comparisons only).
    if map != Map::One || prefixes.vex || prefixes.repeat == 0 || !matches!(opcode, 0xa4 | 0xa5 | 0xaa | 0xab)
    {
        return None;
    }
    let size = if opcode & 1 == 0 { 1 } else { u64::from(prefixes.operand_size()) };
    let left = prefixes.address(state.register(RCX)).checked_mul(size)?;
    // Downwards the registers hold the highest element.
    let back = if downwards { left.checked_sub(size)? } else { 0 };
    let start = |register: u8| {
        let start = prefixes.address(state.register(register)).checked_sub(back)?;
        start.checked_add(left)?;
        Some(start)
    };
    let from = if opcode < 0xaa { Some(start(RSI)?) } else { None };
    Some(CopyInfo { function: "", to: start(RDI)?, from, size: None, left: Some(left) })
}
