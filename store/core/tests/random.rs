//! Random lives of objects, seeded: whatever happens in whatever order, each byte of the arena has one owner and nothing is
//! lost or freed too early.

use bridgehead_spec::ObjectId;
use bridgehead_store_core::{Arena, ClientId, Core, Denied, Extent, Medium, NotThere, Place, PublishError, SlotId};
use std::collections::HashMap;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[derive(Default)]
struct Model {
    pins: HashMap<ObjectId, u32>,
    released: Vec<ObjectId>,
    spilling: Vec<(ObjectId, Medium)>,
    restoring: Vec<ObjectId>,
    moving: Vec<ObjectId>,
    live: Vec<ObjectId>,
    /// On their way to a device, each with a pin.
    copying: Vec<ObjectId>,
    views: HashMap<ObjectId, u32>,
    /// Copies that came to a device, views that were had, objects that left the arena for their copy's sake.
    seen: [u32; 3],
}

impl Model {
    fn held(&self, counts: &HashMap<ObjectId, u32>) -> Vec<ObjectId> {
        counts.iter().filter(|(_, n)| **n > 0).map(|(&id, _)| id).collect()
    }
}

const TOTAL: u64 = 64 << 10;
const CLIENTS: u64 = 3;
/// Devices, and what objects may take of each.
const DEVICES: [u64; 2] = [20 << 10, 9 << 10];

fn produce(core: &mut Core, random: &mut Random, model: &mut Model, id: ObjectId) {
    let client = ClientId(random.below(CLIENTS));
    let len = 1 + random.below(8 << 10);
    let near = [None, Some(0), Some(1), Some(7)][random.below(4) as usize];
    let Ok(extent) = core.grant(client, len, near) else {
        return;
    };
    let slot = core.lend_slots(client, 1)[0];
    match random.below(8) {
        0 => core.give_back(client, extent),
        1 => {} // Left behind until the client goes.
        _ => {
            core.publish(id, extent.offset, len, slot).expect("it was granted");
            assert_eq!(core.publish(id, extent.offset, len, slot), Err(PublishError::Exists));
            model.live.push(id);
        }
    }
}

fn pick(random: &mut Random, from: &[ObjectId]) -> Option<ObjectId> {
    (!from.is_empty()).then(|| from[usize::try_from(random.below(from.len() as u64)).expect("small")])
}

fn free(core: &mut Core, model: &mut Model, id: ObjectId) {
    assert_eq!(
        model.pins.get(&id).copied().unwrap_or(0),
        0,
        "{id} is freed while it is pinned"
    );
    assert!(model.released.contains(&id), "{id} is freed before it is released");
    assert_eq!(
        model.views.get(&id).copied().unwrap_or(0),
        0,
        "{id} is freed while it is looked at"
    );
    let device = core.device(id);
    let freed = core.free(id).expect("nothing holds it");
    assert_eq!(freed.device, device, "its memory of a device is freed with it");
    model.released.retain(|&other| other != id);
}

fn step(core: &mut Core, random: &mut Random, model: &mut Model, number: u64) {
    let mut freeable = None;
    match random.below(18) {
        0..=2 => produce(core, random, model, ObjectId(u128::from(number))),
        3 => {
            if let Some(id) = pick(random, &model.live) {
                if core.pin(id).is_some() {
                    *model.pins.entry(id).or_insert(0) += 1;
                }
            }
        }
        4 => {
            let mut pinned = model.held(&model.pins);
            pinned.retain(|id| !model.copying.contains(id));
            pinned.sort();
            if let Some(id) = pick(random, &pinned) {
                *model.pins.get_mut(&id).expect("it is pinned") -= 1;
                freeable = core.unpin(id).then_some(id);
            }
        }
        5 => {
            if let Some(id) = pick(random, &model.live) {
                model.live.retain(|&other| other != id);
                model.released.push(id);
                freeable = core.release(id).then_some(id);
                assert!(core.find(id).is_none(), "a released object is not found");
            }
        }
        6 => {
            let held = SlotId(u32::try_from(random.below(4)).expect("small"));
            for spill in core.choose_spills(1 + random.below(16 << 10), |slot| slot == held) {
                assert_ne!(spill.slot, held, "a leased object is never moved");
                assert_eq!(model.pins.get(&spill.id).copied().unwrap_or(0), 0, "nor a pinned one");
                assert_eq!(spill.to, core.device(spill.id).map_or(Medium::Disk, Medium::Device));
                model.spilling.push((spill.id, spill.to));
            }
        }
        7 => {
            if let Some((id, to)) = model.spilling.pop() {
                if random.below(3) == 0 || !core.spilled(id, to) {
                    freeable = core.keep(id).then_some(id);
                } else if model.released.contains(&id) && model.views.get(&id).is_none_or(|&n| n == 0) {
                    freeable = Some(id);
                }
            }
        }
        8 => {
            if let Some(id) = pick(random, &model.live) {
                if let Some((len, _, Place::Away(medium))) = core.find(id) {
                    if let Ok(extent) = core.grant(ClientId(9), len, None) {
                        assert_eq!(core.restore(id, ClientId(9), extent), Ok(medium), "it is away");
                        model.restoring.push(id);
                    }
                }
            }
        }
        9 => {
            if let Some(id) = model.restoring.pop() {
                freeable = core.restored(id, random.below(3) > 0).then_some(id);
            }
        }
        10 => {
            if let Some(moving) = pick(random, &model.live).and_then(|id| core.begin_move(id)) {
                assert_eq!(
                    model.pins.get(&moving.id).copied().unwrap_or(0),
                    0,
                    "a pinned object is not moved"
                );
                model.moving.push(moving.id);
            }
        }
        11 => {
            if let Some(id) = model.moving.pop() {
                freeable = end_move(core, random, model, id).then_some(id);
            }
        }
        12 => {
            let held = SlotId(u32::try_from(random.below(4)).expect("small"));
            assert!(
                !core.forget_left(|slot| slot == held).contains(&held),
                "readers keep what they look at"
            );
        }
        13..=16 => freeable = devices(core, random, model),
        _ => core.client_gone(ClientId(random.below(CLIENTS))),
    }
    if let Some(id) = freeable {
        free(core, model, id);
    }
}

/// The object lies elsewhere in memory now, or stays; whether it can be freed.
fn end_move(core: &mut Core, random: &mut Random, model: &Model, id: ObjectId) -> bool {
    let writer = ClientId(9);
    if let (Some((len, ..)), true) = (core.find(id), random.below(4) > 0) {
        if let Ok(extent) = core.grant(writer, len, Some(1)) {
            let slot = core.lend_slots(writer, 1)[0];
            if core.moved(id, writer, extent, slot) {
                assert_eq!(core.find(id), Some((len, slot, Place::Memory(extent))));
                return false;
            }
            core.give_back(writer, extent);
            core.return_slot(slot);
            assert!(model.pins[&id] > 0, "only a pin keeps it where it is");
        }
    }
    core.keep(id)
}

/// The object leaves the arena if its copy is on a device and nothing holds it.
fn leave(core: &mut Core, model: &mut Model, id: ObjectId) {
    let Some(spill) = core.leave(id) else { return };
    assert!(core.pin(id).is_some(), "it is in the arena until it has left");
    assert!(!core.unpin(id), "nobody released it");
    assert!(core.spilled(id, spill.to), "nothing holds it there");
    assert_eq!(core.find(id).map(|(.., place)| place), Some(Place::Away(spill.to)));
    model.seen[2] += 1;
}

/// A step of an object to, on or off a device; what can be freed after it.
fn devices(core: &mut Core, random: &mut Random, model: &mut Model) -> Option<ObjectId> {
    match random.below(5) {
        0 | 1 => {
            let id = pick(random, &model.live)?;
            let device = u32::try_from(random.below(3)).expect("small");
            core.pin(id)?;
            match core.copy_to(id, device) {
                Ok(true) => {
                    *model.pins.entry(id).or_insert(0) += 1;
                    model.copying.push(id);
                    return None;
                }
                Ok(false) => assert_eq!(core.device(id), Some(device), "its copy is there already"),
                Err(NotThere::NoDevice { .. }) => assert_eq!(device, 2, "there are two"),
                Err(NotThere::Viewed { device: at }) => {
                    assert!(model.views[&id] > 0 && core.device(id) == Some(at));
                }
                Err(NotThere::Busy) => assert!(model.copying.contains(&id)),
                Err(NotThere::Full { used, limit, len, .. }) => {
                    assert!(used + len > limit && limit == DEVICES[device as usize]);
                }
                Err(NotThere::NotHeld) => panic!("it is pinned"),
            }
            core.unpin(id).then_some(id)
        }
        2 => {
            let id = model.copying.pop()?;
            let complete = random.below(4) > 0;
            core.copied(id, complete);
            model.seen[0] += u32::from(complete);
            assert_eq!(core.device(id).is_some(), complete);
            *model.pins.get_mut(&id).expect("it is pinned") -= 1;
            let freeable = core.unpin(id);
            leave(core, model, id);
            freeable.then_some(id)
        }
        3 => {
            let id = pick(random, &model.live)?;
            if random.below(2) == 0 {
                if let Some((_, device)) = core.view(id) {
                    assert_eq!(core.device(id), Some(device));
                    *model.views.entry(id).or_insert(0) += 1;
                    model.seen[1] += 1;
                }
                return None;
            }
            leave(core, model, id);
            None
        }
        _ => {
            let mut viewed = model.held(&model.views);
            viewed.sort();
            let id = pick(random, &viewed)?;
            *model.views.get_mut(&id).expect("it is looked at") -= 1;
            core.unview(id).then_some(id)
        }
    }
}

#[test]
fn each_byte_has_one_owner_whatever_happens() {
    let mut seen = [0; 3];
    for seed in 0..60 {
        let mut random = Random(seed);
        let arena = |len, nearest: &[usize]| Arena {
            numa: None,
            len,
            nearest: nearest.to_vec(),
        };
        let two = [arena(TOTAL / 4, &[0, 1]), arena(TOTAL / 4 * 3, &[1, 0])];
        let mut core = Core::new(if seed % 2 == 0 { &two } else { &two[..1] }, 128);
        core.set_devices(DEVICES);
        let mut model = Model::default();
        for number in 0..1_500 {
            step(&mut core, &mut random, &mut model, number);
            core.sanity_check();
        }
        (0..3).for_each(|what| seen[what] += model.seen[what]);
    }
    assert!(seen.iter().all(|&times| times > 100), "all of it happened: {seen:?}");
}

#[test]
fn what_can_never_fit_is_told_apart_from_what_does_not_fit_now() {
    let mut core = Core::new(&[Arena::only(1 << 12)], 8);
    let client = ClientId(1);
    assert!(matches!(core.grant(client, 1 << 13, None), Err(Denied::Never { .. })));
    assert!(matches!(core.grant(client, u64::MAX, None), Err(Denied::Never { .. })));
    core.grant(client, 1 << 12, None).expect("the whole arena");
    assert!(matches!(
        core.grant(client, 64, None),
        Err(Denied::Full { free: 0, .. })
    ));
    core.client_gone(client);
    assert!(core.grant(client, 64, None).is_ok());
}

#[test]
fn a_writer_can_only_publish_what_it_was_granted() {
    let mut core = Core::new(&[Arena::only(1 << 12)], 8);
    let extent = core.grant(ClientId(1), 256, None).expect("room");
    let slot = core.lend_slots(ClientId(1), 1)[0];
    let id = ObjectId(1);
    for (offset, len) in [
        (extent.offset, 257),
        (extent.end(), 64),
        (u64::MAX - 63, 64),
        (extent.offset + 1, 8),
    ] {
        assert_eq!(
            core.publish(id, offset, len, slot),
            Err(PublishError::NotGranted),
            "{offset} {len}"
        );
    }
    assert_eq!(
        core.publish(id, extent.offset, 64, SlotId(7)),
        Err(PublishError::NoSlot)
    );
    assert_eq!(
        core.publish(id, extent.offset + 64, 64, slot),
        Ok(Extent::new(extent.offset + 64, 64))
    );
    core.client_gone(ClientId(1));
    core.sanity_check();
    assert_eq!(
        core.find(id).map(|(len, ..)| len),
        Some(64),
        "what was published outlives its writer"
    );
}

#[test]
fn the_longest_unused_object_is_moved_first() {
    let mut core = Core::new(&[Arena::only(1 << 12)], 8);
    let client = ClientId(1);
    for n in 1..=3 {
        let extent = core.grant(client, 64, None).expect("room");
        let slot = core.lend_slots(client, 1)[0];
        core.publish(ObjectId(n), extent.offset, 64, slot).expect("granted");
    }
    core.pin(ObjectId(1)).expect("it is here");
    core.unpin(ObjectId(1));
    let chosen: Vec<_> = core.choose_spills(100, |_| false).into_iter().map(|s| s.id).collect();
    assert_eq!(chosen, [ObjectId(2), ObjectId(3)]);
}
