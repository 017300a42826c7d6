"""Hierarchical Topology Distillation."""

from typing import Literal

import torch
from torch import Tensor

from kdrec.data.interactions import Interactions
from kdrec.data.sampling import Batch
from kdrec.distillation.assignment import GroupAssignment, cooled, require_temperatures
from kdrec.distillation.base import (
    Distiller,
    Teacher,
    entities_in_scope,
    require_choice,
    vector_widths,
    warn_of_zero_vectors,
)
from kdrec.distillation.ranks import num_ranks, own_rows
from kdrec.distillation.topology import grouped_distance, normalise, prototypes
from kdrec.errors import InputError
from kdrec.models.base import Recommender


class HTD(Distiller):
    """Make the similarities within groups, and between groups and entities, equal the teacher's.

    The loss is weight * (gamma * (entity level + group level) + (1 - gamma) * group assignment). Users and items have
    groups of their own. The temperature of the assignment falls geometrically over the training.

    Args:
        weight: Factor of the loss; it is a sum, and the published 1e-3 belongs to batches of 1024.
        gamma: Share of the topology terms against the group assignment, in [0, 1].
        num_groups: Groups on each side.
        group_level: "Group(P,e)" compares prototypes with entities, "Group(P,P)" prototypes with prototypes.
        mode: "reference" follows the authors' published runs: prototypes carry no gradient, a pair of one group counts
            only where the teacher's similarity is above 0, and a group's members stay in its group level. "paper"
            follows the text: prototypes carry gradient, all pairs of one group count, members are left out.
        first_temperature: Of the assignment in the first epoch, at least 1e-30, below which shares are no numbers.
        last_temperature: What it nears: epoch e of E (counted from 0) has first * (last / first) ** (e / E).
        scope: "batch" compares the unique users and items of the batch, as published; "positives" leaves its negatives
            out, so that neither cost nor sum grows with their number; "all" compares the whole catalogue.
        topology_scope: Of several processes. With "rank" each compares its own batch. With "global" groups, prototypes
            and pairs are those of all batches together, so that N processes with batches of B do what one does with a
            batch of N * B: each looks up all entities, and the sums are shared out. The whole catalogue is shared out
            in either case.

    Raises:
        InputError: If an option is out of its range, or Group(P,P) is asked for in the reference mode, where it has no
            gradient at all.

    References:
        Kang et al., Topology Distillation for Recommender System, KDD 2021, sec. 4.2.
    """

    anneals = True

    def __init__(
        self,
        weight: float = 1e-3,
        gamma: float = 0.5,
        num_groups: int = 30,
        group_level: Literal["Group(P,e)", "Group(P,P)"] = "Group(P,e)",
        mode: Literal["reference", "paper"] = "reference",
        first_temperature: float = 1.0,
        last_temperature: float = 1e-10,
        scope: Literal["batch", "positives", "all"] = "batch",
        topology_scope: Literal["rank", "global"] = "rank",
    ) -> None:
        super().__init__(weight)
        if not 0 <= gamma <= 1:
            raise InputError(f"HTD: gamma is {gamma}; it must lie between 0 and 1.")
        if num_groups < 1:
            raise InputError(f"HTD: num_groups is {num_groups}; it must be at least 1.")
        require_temperatures(self, first_temperature, last_temperature)
        require_choice(self, "group_level", group_level, ("Group(P,e)", "Group(P,P)"))
        require_choice(self, "mode", mode, ("reference", "paper"))
        require_choice(self, "scope", scope, ("batch", "positives", "all"))
        require_choice(self, "topology_scope", topology_scope, ("rank", "global"))
        if group_level == "Group(P,P)" and mode == "reference":
            raise InputError("HTD: Group(P,P) has no gradient in mode reference; choose mode: paper, or Group(P,e).")
        self.gamma = gamma
        self.num_groups = num_groups
        self.group_level = group_level
        self.mode = mode
        self.first_temperature = first_temperature
        self.last_temperature = last_temperature
        self.scope = scope
        self.topology_scope = topology_scope
        self.temperature = first_temperature

    def bind(self, student: Recommender, teacher: Teacher, train: Interactions) -> None:
        """As `Distiller.bind`: builds selectors and experts of both sides."""
        warn_of_zero_vectors(student, teacher)
        widths = vector_widths(student, teacher)
        self.users = GroupAssignment(*widths, self.num_groups)
        self.items = GroupAssignment(*widths, self.num_groups)

    def on_epoch_start(self, progress: float) -> None:
        """As `Distiller.on_epoch_start`: lowers the temperature."""
        self.temperature = cooled(self.first_temperature, self.last_temperature, progress)

    def figures(self, teacher: Teacher) -> dict[str, float]:
        """As `Distiller.figures`: the temperature and, for each side, groups in use and the largest one's share."""
        result = {"htd_temperature": self.temperature}
        for name, side, vectors in (
            ("users", self.users, teacher.user_vectors()),
            ("items", self.items, teacher.item_vectors()),
        ):
            result[f"htd_{name}_groups"], result[f"htd_{name}_largest"] = side.use(vectors)
        return result

    def forward(self, batch: Batch, student: Recommender, teacher: Teacher) -> dict[str, Tensor]:
        """As `Distiller.forward`; terms ``htd_entity``, ``htd_group`` and ``htd_assignment``."""
        over_ranks = self.scope == "all" or self.topology_scope == "global"
        users, items = entities_in_scope(self.scope, over_ranks, batch, student)
        ours = student.user_vectors(users), student.item_vectors(items)
        theirs = teacher.user_vectors(users), teacher.item_vectors(items)
        own = [own_rows(len(side)) if over_ranks else slice(None) for side in (users, items)]
        of_users, user_groups = self.users(ours[0], theirs[0], self.temperature, own[0])
        of_items, item_groups = self.items(ours[1], theirs[1], self.temperature, own[1])
        groups = torch.cat((user_groups, item_groups + self.num_groups))
        entity, group = self._topology(torch.cat(ours), torch.cat(theirs), groups, over_ranks)
        return {
            "htd_entity": self.weight * self.gamma * entity,
            "htd_group": self.weight * self.gamma * group,
            "htd_assignment": self.weight * (1 - self.gamma) * (of_users + of_items),
        }

    def _topology(self, student: Tensor, teacher: Tensor, groups: Tensor, over_ranks: bool) -> tuple[Tensor, Tensor]:
        """Return entity level and group level, without weights; over ranks, what this process adds to them."""
        reference, num_groups = self.mode == "reference", 2 * self.num_groups
        s, t = normalise(student), normalise(teacher)
        entity = grouped_distance(s, t, groups, num_groups, positive_only=reference, over_ranks=over_ranks)
        ours = normalise(prototypes(student.detach() if reference else student, groups, num_groups))
        theirs = normalise(prototypes(teacher, groups, num_groups))
        if self.group_level == "Group(P,P)":
            return entity, (theirs @ theirs.T - ours @ ours.T).square().sum() / (num_ranks() if over_ranks else 1)
        if over_ranks:
            own = own_rows(len(groups))
            s, t, groups = s[own], t[own], groups[own]
        difference = torch.addmm(theirs @ t.T, ours, s.T, alpha=-1).square()
        if not reference:
            members = groups.unsqueeze(0) == torch.arange(num_groups, device=groups.device).unsqueeze(1)
            difference = difference * ~members
        return entity, difference.sum()
