//! Laws of the objects that only their table itself shows.

use super::*;

#[test]
fn a_store_that_once_held_many_gives_the_memory_of_its_table_back() {
    let count: u32 = 20_000;
    let mut core = Core::new(&[Arena::only(u64::from(count) * 64)], count);
    let (client, ids) = (ClientId(1), 0..u128::from(count));
    let slots = core.lend_slots(client, count as usize);
    let extent = core.grant(client, u64::from(count) * 64, None).expect("it is empty");
    for (id, slot) in ids.clone().zip(slots) {
        let offset = extent.offset + u64::from(slot.0) * 64;
        core.publish(ObjectId(id), offset, 64, slot).expect("it was granted");
    }
    let before = core.objects.capacity();
    for id in ids {
        core.release(ObjectId(id));
        core.free(ObjectId(id)).expect("nobody holds it");
    }
    assert!(before >= count as usize);
    assert!(
        core.objects.capacity() <= 16 * FEW,
        "{} places are left",
        core.objects.capacity()
    );
    core.sanity_check();
}
