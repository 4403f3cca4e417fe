"""Equation 4 of M3I as one module.

    L(s, t_x, t_y) = sum_k -weight_k log P_hat_k(z_y^k | z_hat_y^k)

Inputs are named: two terms that name the same input share one draw of hidden cells and one encoding. Each distinct
(encoder, view) target is computed once. Whether a target carries gradients is not a flag: its encoder's role says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from onestage.encoders import EncoderSpec
from onestage.objective.asks import Ask, ask_for
from onestage.objective.average import average, averaging_mode, momentum
from onestage.objective.balance import Taps, Weights
from onestage.objective.build import Answers, average_of, build_encoder, build_target, leave_unread_norms, target_grid
from onestage.objective.declare import Ema, Frozen, Method, Term, Trained
from onestage.objective.drawn import Redrawn
from onestage.objective.encode import encode, explained_piece, shown_of
from onestage.objective.hide import chosen
from onestage.objective.left_out import blended, drop_terms, given, without_missing
from onestage.objective.match import nearest
from onestage.objective.monitor import watched
from onestage.objective.own import hidden_cells, own_tokens
from onestage.objective.projectors import Projectors, target_projector
from onestage.objective.words import identity, numbers, only_hidden, only_words
from onestage.predictors import Drawn
from onestage.roles import Committing, Encoder, Likelihood, Predictor, Regulariser, Scheduled, Shared, TargetMaker
from onestage.targets import Encoded, OfPixels, PixelsTarget, Spelled, Table, wanted_cells
from onestage.types import Batch, Losses, Represented, Target, Tokens, View, Wanted


@final
class Objective(nn.Module):
    """Equation 4 as one module, so that DDP, FSDP2 and compile wrap it once.

    Args:
        method: the row.
        models: a spec for every trained encoder of the row.
        teachers: what each frozen teacher of the row answers with.
        classes: number of categories, where a target is a table.

    Raises:
        UserError: when a model is missing, or a teacher's grid does not fit the student's.
    """

    def __init__(
        self,
        method: Method,
        models: dict[str, EncoderSpec],
        teachers: dict[str, Answers],
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.looks = {name: answer.look for name, answer in teachers.items()}
        built = {name: build_encoder(method, name, models) for name in method.named(Trained)}
        for name in method.named(Ema):
            built[name] = average_of(method, name, models, built)
        self.encoders = nn.ModuleDict(built)
        self.projectors = Projectors(method, built)
        self.targets = nn.ModuleDict()
        self.predictors = nn.ModuleDict()
        self.likelihoods = nn.ModuleDict()
        self.regularisers = nn.ModuleDict()
        for name, term in method.terms.items():
            student = built[method.input_of(term).encoder]
            grid = target_grid(method, name, student, built, teachers)
            width = self.projectors.width(term, student)
            maker = build_target(method, term, width, built, teachers, classes)
            self.targets[name] = maker
            if term.shares is None:
                self.predictors[name] = term.predictor.build(width, maker.width, grid)
                self.likelihoods[name] = term.likelihood.build(maker.width)
            if term.regulariser is not None:
                self.regularisers[name] = term.regulariser.build()
        leave_unread_norms(method, built)
        self.weights = Weights(tuple(method.terms), {n: t.weight for n, t in method.terms.items()}, method.balance)
        self.taps = Taps({name: _rows_of(term) for name, term in method.terms.items()})

    def forward(self, batch: Batch, answers: dict[Ask, Tokens]) -> Losses:
        """Losses of a batch: `score` of `represent`."""
        return self.score(self.represent(batch, answers))

    def represent(self, batch: Batch, answers: dict[Ask, Tokens]) -> Represented:
        """Choose what is hidden by the teachers' answers, encode each input once and each target once, and guess."""
        batch = chosen(self.method, batch, answers, {name: self.encoder(name).grid for name in self.encoders})
        encoded = encode(self.method, self.encoder, batch)
        projected: dict[str, Tokens] = {}
        drawn = Redrawn(self.method, self.looks)
        made: dict[tuple[str, str, str], Tokens] = {}
        guesses: dict[str, Tensor] = {}
        targets: dict[str, Target] = {}
        costs: dict[str, Tensor] = {}
        for name, term in self.method.terms.items():
            key, source = term.x.partition("/")[0], self._source(term, batch, answers, made)
            if isinstance(term.predictor, Drawn):
                tokens = self._redrawn(term, guesses[term.predictor.of], source, drawn)
            elif term.projector is None:
                tokens = own_tokens(self.method, term, batch, self.taps.tap(name, encoded[key]))
            else:
                if _rows_of(term) not in projected:
                    encoder = self.encoder(self.method.input_of(term).encoder)
                    own = own_tokens(self.method, term, batch, encoded[key])
                    projected[_rows_of(term)] = self.projectors.seen(term, own, encoder)
                tokens = self.taps.tap(name, projected[_rows_of(term)])
            wanted = self._wanted(term, batch, tokens, source)
            explained = self._matched(term, wanted, own_tokens(self.method, term, batch, encoded[key]), made)
            target = self.target(name)(source, explained, identity(self.method, term, batch))
            target = blended(target, term, self.method, batch)
            if isinstance(term.target, Spelled):
                target = only_hidden(target, wanted, hidden_cells(self.method, term, batch, tokens.grid)[0])
            elif self.method.words_by_words(term) and batch.words is not None:
                target = only_words(target, wanted, batch.words)
            targets[name] = without_missing(target, wanted, given(term, self.method, batch))
            predictor = self.predictor(name)
            guesses[name] = predictor(tokens, wanted)
            if isinstance(predictor, Committing):
                costs[name] = predictor.cost()
        represented = Represented(guesses, targets, costs)
        return drop_terms(self.method, represented) if self.training else represented

    def score(self, represented: Represented) -> Losses:
        """-log P_hat of every term in fp32 with its regulariser, their weighted sum, and what is watched of them."""
        terms: dict[str, Tensor] = {}
        seen: dict[str, Tensor] = {}
        for name in self.method.terms:
            guess, target = represented.guesses[name], represented.targets[name]
            terms[name] = self.likelihood(name)(guess, target)
            seen |= watched(name, self.likelihood(name), target, terms[name])
            if name in self.regularisers:
                added = self.regulariser(name)(guess, target)
                seen[f"regulariser/{name}"] = added.detach()
                terms[name] = terms[name] + added
            if name in represented.costs:
                terms[name] = terms[name] + represented.costs[name].mean()
        for owner, names in self._sharing():
            likelihood = self.likelihood(owner)
            if isinstance(likelihood, Shared):
                added = likelihood.together([represented.guesses[name] for name in names])
                seen[f"regulariser/{owner}"] = added.detach()
                terms |= {name: terms[name] + added for name in names}
        seen |= {f"codes/{name}": predictor.perplexity() for name, predictor in self._committing()}
        return Losses(self.weights.total(terms), terms, seen)

    def training_mode(self) -> None:
        """Everything that is trained into training mode; averages stay in evaluation mode (no drop path)."""
        self.train()
        for name in self.method.named(Ema):
            averaging_mode(self.encoders[name], _role(self.method, name).buffers)
        self.projectors.training_mode()

    @torch.no_grad()
    def after_step(self, step: int, total: int, products: dict[tuple[str, str], Tensor] | None = None) -> None:
        """Commit everything that changes after optimiser step `step` of `total`, counted from 0: a skipped step is
        not committed and so leaves no trace. `products` are what `taps` read of the step."""
        for name in self.method.named(Ema):
            role = _role(self.method, name)
            average(self.encoders[name], self.encoders[role.of], momentum(role, step, total), role.buffers)
        self.projectors.after_step(step, total)
        for name in self.method.terms:
            likelihood = self.likelihood(name)
            likelihood.after_step()
            if isinstance(likelihood, Scheduled):
                likelihood.advance((step + 1) / max(total, 1))
            self.target(name).after_step()
        for _, predictor in self._committing():
            predictor.after_step()
        self.weights.after_step(products or {})

    def after_skip(self) -> None:
        """Forget what a skipped step would have committed."""
        for name in self.method.terms:
            self.likelihood(name).after_skip()
            self.target(name).after_skip()
        for _, predictor in self._committing():
            predictor.after_skip()

    def _sharing(self) -> Iterator[tuple[str, list[str]]]:
        """The terms that have a likelihood of their own, each with all that use it."""
        terms = self.method.terms
        for owner in self.likelihoods:
            yield owner, [name for name, term in terms.items() if (term.shares or name) == owner]

    def _committing(self) -> Iterator[tuple[str, Committing]]:
        """The predictors that have a state."""
        for name in self.method.terms:
            predictor = self.predictor(name)
            if isinstance(predictor, Committing):
                yield name, predictor

    def likelihood(self, term: str) -> Likelihood:
        """The likelihood of a term."""
        module = self.likelihoods[self.method.terms[term].shares or term]
        assert isinstance(module, Likelihood)
        return module

    def regulariser(self, term: str) -> Regulariser:
        """The regulariser of a term that has one."""
        module = self.regularisers[term]
        assert isinstance(module, Regulariser)
        return module

    def encoder(self, name: str) -> Encoder:
        """A trained or EMA encoder."""
        module = self.encoders[name]
        assert isinstance(module, Encoder)
        return module

    def predictor(self, term: str) -> Predictor:
        """The predictor of a term."""
        module = self.predictors[self.method.terms[term].shares or term]
        assert isinstance(module, Predictor)
        return module

    def target(self, term: str) -> TargetMaker:
        """What makes the target of a term."""
        module = self.targets[term]
        assert isinstance(module, TargetMaker)
        return module

    def _source(
        self, term: Term, batch: Batch, answers: dict[Ask, Tokens], made: dict[tuple[str, str, str], Tokens]
    ) -> View | Tokens | Int[Tensor, " b"]:
        """What a target is made of: pixels, another encoder's tokens, or labels."""
        if isinstance(term.target, OfPixels):
            return batch.views[term.y]
        if isinstance(term.target, Spelled):
            assert batch.words is not None, "the loader checks that texts are there"
            return numbers(batch.words)
        if isinstance(term.target, Table):
            assert batch.label is not None, "the loader checks that labels are there"
            return batch.label if batch.labelled is None else batch.label.clamp_min(0)
        name = term.target.encoder
        role = self.method.encoders[name]
        if isinstance(role, Frozen):
            return answers[ask_for(self.method, name, term.y, term.target.space)]
        shown = shown_of(term)
        through = (name, shown, target_projector(self.method, term) or "")
        with torch.set_grad_enabled(isinstance(role, Trained) and torch.is_grad_enabled()):
            if (name, shown, "") not in made:
                encoder = self.encoder(name)
                piece = explained_piece(
                    self.method, name, term, batch, hidden_cells(self.method, term, batch, encoder.grid)
                )
                made[name, shown, ""] = encoder({"target": piece})
            if through not in made:
                made[through] = self.projectors.explained(term, made[name, shown, ""])
        return made[through]

    def _matched(self, term: Term, wanted: Wanted, own: Tokens, made: dict[tuple[str, str, str], Tokens]) -> Wanted:
        """The cells of the target that the guesses of the wanted cells explain."""
        if term.match == "place" or not isinstance(term.target, Encoded):
            return wanted
        return nearest(own, made[term.target.encoder, shown_of(term), ""], wanted)

    def _redrawn(self, term: Term, guess: Tensor, source: View | Tokens | Tensor, drawn: Redrawn) -> Tokens:
        """What a frozen encoder says of the picture that another term's guess is."""
        assert isinstance(term.predictor, Drawn) and isinstance(source, Tokens), "checked when declared"
        pixels = self.target(term.predictor.of)
        assert isinstance(pixels, PixelsTarget), "checked when declared"
        return drawn.tokens(term, guess, pixels, source)

    def _wanted(self, term: Term, batch: Batch, tokens: Tokens, source: View | Tokens | Int[Tensor, " b"]) -> Wanted:
        resampled = isinstance(term.target, Encoded) and term.target.fit == "resample"
        grid = source.grid if isinstance(source, Tokens) and not resampled else tokens.grid
        hidden, count = hidden_cells(self.method, term, batch, tokens.grid)
        rows = "pooled" if isinstance(term.target, Table) else term.target.rows
        like = tokens.pooled
        cells = wanted_cells(rows, hidden, count, grid, like.shape[0], like.device)
        return Wanted(cells, grid, None if isinstance(source, Tensor) else source.geometry)


def _rows_of(term: Term) -> str:
    """Which rows a term reads: its input or, behind a projector, the rows of that."""
    return term.x.partition("/")[0] if term.projector is None else f"{term.x} {term.projector}"


def _role(method: Method, name: str) -> Ema:
    role = method.encoders[name]
    assert isinstance(role, Ema)
    return role
